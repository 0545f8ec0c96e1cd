// What the library takes from the operating system: threads, waiting, file locks, memory. It links no libc of its own:
// pthreads come from the host process, the rest are system calls. Nothing here knows what is computed.
const std = @import("std");
const builtin = @import("builtin");

const linux = std.os.linux;
const is_linux = builtin.os.tag == .linux;

extern fn pthread_create(thread: *usize, attributes: ?*const anyopaque, start: *const fn (?*anyopaque) callconv(.c) ?*anyopaque, argument: ?*anyopaque) c_int;
extern fn pthread_join(thread: usize, result: ?*?*anyopaque) c_int;

/// A native thread. std.Thread cannot be used: without libc it has no valid thread-local storage inside a shared library.
pub const Thread = struct {
    handle: usize,

    pub fn spawn(comptime start: fn (*anyopaque) void, argument: *anyopaque) error{NoThread}!Thread {
        const entry = struct {
            fn entry(context: ?*anyopaque) callconv(.c) ?*anyopaque {
                start(context.?);
                return null;
            }
        }.entry;
        var thread: Thread = undefined;
        if (pthread_create(&thread.handle, null, entry, argument) != 0) return error.NoThread;
        return thread;
    }

    pub fn join(thread: Thread) void {
        _ = pthread_join(thread.handle, null);
    }
};

/// Sleeps while `value` holds `expected`, at most `timeout_ns` (0: no limit). May wake without reason.
pub fn wait(value: *const std.atomic.Value(u32), expected: u32, timeout_ns: u64) void {
    if (is_linux) {
        const limit: linux.timespec = .{
            .sec = @intCast(timeout_ns / std.time.ns_per_s),
            .nsec = @intCast(timeout_ns % std.time.ns_per_s),
        };
        _ = linux.futex_4arg(&value.raw, .{ .cmd = .WAIT, .private = true }, expected, if (timeout_ns == 0) null else &limit);
    } else {
        const limit_us: u32 = @intCast(@min(timeout_ns / std.time.ns_per_us, std.math.maxInt(u32)));
        _ = std.c.__ulock_wait(.{ .op = .COMPARE_AND_WAIT, .NO_ERRNO = true }, &value.raw, expected, limit_us);
    }
}

/// Wakes every thread that waits on `value`.
pub fn wakeAll(value: *const std.atomic.Value(u32)) void {
    if (is_linux) {
        _ = linux.futex_3arg(&value.raw, .{ .cmd = .WAKE, .private = true }, std.math.maxInt(i32));
    } else {
        _ = std.c.__ulock_wake(.{ .op = .COMPARE_AND_WAIT, .WAKE_ALL = true, .NO_ERRNO = true }, &value.raw, 0);
    }
}

/// Monotonic time in nanoseconds.
pub fn now() u64 {
    if (is_linux) {
        var time: linux.timespec = undefined;
        _ = linux.clock_gettime(.MONOTONIC, &time);
        return @as(u64, @intCast(time.sec)) * std.time.ns_per_s + @as(u64, @intCast(time.nsec));
    }
    var time: std.c.timespec = undefined;
    _ = std.c.clock_gettime(.UPTIME_RAW, &time);
    return @as(u64, @intCast(time.sec)) * std.time.ns_per_s + @as(u64, @intCast(time.nsec));
}

/// CPU time of the calling thread in nanoseconds: what it ran, not what it waited for others.
pub fn threadTime() u64 {
    if (is_linux) {
        var time: linux.timespec = undefined;
        _ = linux.clock_gettime(.THREAD_CPUTIME_ID, &time);
        return @as(u64, @intCast(time.sec)) * std.time.ns_per_s + @as(u64, @intCast(time.nsec));
    }
    var time: std.c.timespec = undefined;
    _ = std.c.clock_gettime(.THREAD_CPUTIME_ID, &time);
    return @as(u64, @intCast(time.sec)) * std.time.ns_per_s + @as(u64, @intCast(time.nsec));
}

/// Takes an exclusive lock on an open file without waiting: flock(2), released when the process ends.
pub fn lockFile(fd: i32) error{ Held, BadFile }!void {
    const exclusive = 2;
    const without_waiting = 4;
    if (is_linux) {
        return switch (linux.errno(linux.flock(fd, exclusive | without_waiting))) {
            .SUCCESS => {},
            .AGAIN => error.Held,
            else => error.BadFile,
        };
    }
    if (std.c.flock(fd, exclusive | without_waiting) == 0) return;
    return switch (std.c.errno(@as(c_int, -1))) {
        .AGAIN => error.Held,
        else => error.BadFile,
    };
}

/// Zeroed memory of 64-byte alignment, straight from the system; freed with `free`.
pub fn allocate(comptime T: type, count: usize) error{OutOfMemory}![]align(64) T {
    const memory = try std.heap.page_allocator.alignedAlloc(T, .@"64", count);
    if (builtin.mode != .ReleaseFast) @memset(std.mem.sliceAsBytes(memory), 0); // fresh pages are zero; Debug fills them with 0xaa
    return memory;
}

/// Pages of 2 MiB: a product walks through columns of a matrix with a page, or several, for each row, and the processor keeps
/// the places of only so many pages.
const huge_page = 2 << 20;

/// As `allocate`; where it is large, in huge pages if the system has them to give. What is touched may then count up to 2 MiB more.
pub fn allocateLarge(comptime T: type, count: usize) error{OutOfMemory}![]align(64) T {
    if (!is_linux or count *| @sizeOf(T) < 2 * huge_page) return allocate(T, count);
    const memory = try std.heap.page_allocator.alignedAlloc(T, .fromByteUnits(huge_page), count);
    _ = linux.madvise(@ptrCast(memory.ptr), std.mem.sliceAsBytes(memory).len, linux.MADV.HUGEPAGE); // only advice
    if (builtin.mode != .ReleaseFast) @memset(std.mem.sliceAsBytes(memory), 0);
    return memory;
}

pub fn free(memory: anytype) void {
    std.heap.page_allocator.free(memory);
}

/// Last words, straight to standard error.
pub fn writeError(text: []const u8) void {
    if (is_linux) _ = linux.write(2, text.ptr, text.len) else _ = std.c.write(2, text.ptr, text.len);
}
