// The worker threads of a context: one task at a time, run by every worker; barriers inside a task; start, wait, cancel
// from outside. It does not know what a task computes. Results must not depend on the number of workers.
const std = @import("std");
const os = @import("os.zig");

const Counter = std.atomic.Value(u32);

/// A task is run once by each worker; `worker` counts from 0.
pub const Task = struct {
    context: *anyopaque,
    run: *const fn (context: *anyopaque, worker: u32) void,
};

/// About 20-50 microseconds of spinning before a thread sleeps: longer than a step's gaps, shorter than a time slice.
const spins = 4000;

pub const Pool = struct {
    workers: []Worker,
    task: Task,
    /// Counts tasks; all workers but the first sleep on it.
    epoch: Counter align(std.atomic.cache_line),
    /// Counts the tasks that the first worker has a share in: all but those of `runNow`.
    handed: Counter align(std.atomic.cache_line),
    /// Workers that have not finished the current task.
    running: Counter align(std.atomic.cache_line),
    /// 1 once the current task is finished (or none was started).
    finished: Counter,
    cancelled: std.atomic.Value(bool),
    stopping: std.atomic.Value(bool),
    /// What the last to reach a barrier found out for all (int8/rows.zig).
    verdict: std.atomic.Value(bool),
    barrier_count: Counter align(std.atomic.cache_line),
    barrier_epoch: Counter align(std.atomic.cache_line),

    const Worker = struct { pool: *Pool, index: u32, thread: os.Thread };

    /// Starts `threads` workers; `pool` must not move afterwards.
    pub fn init(pool: *Pool, threads: u32) error{ OutOfMemory, NoThread }!void {
        pool.* = .{
            .workers = try std.heap.page_allocator.alloc(Worker, threads),
            .task = undefined,
            .epoch = .init(0),
            .handed = .init(0),
            .running = .init(0),
            .finished = .init(1),
            .cancelled = .init(false),
            .stopping = .init(false),
            .verdict = .init(false),
            .barrier_count = .init(0),
            .barrier_epoch = .init(0),
        };
        for (pool.workers, 0..) |*worker, i| {
            worker.* = .{ .pool = pool, .index = @intCast(i), .thread = undefined };
            worker.thread = os.Thread.spawn(work, worker) catch |err| {
                pool.stop(i);
                return err;
            };
        }
    }

    pub fn deinit(pool: *Pool) void {
        pool.cancel();
        while (!pool.wait(1000)) {}
        pool.stop(pool.workers.len);
    }

    fn stop(pool: *Pool, started: usize) void {
        pool.stopping.store(true, .release);
        announce(&pool.epoch);
        announce(&pool.handed);
        for (pool.workers[0..started]) |worker| worker.thread.join();
        std.heap.page_allocator.free(pool.workers);
    }

    /// Hands a task to the workers and returns at once. The previous one must be finished.
    pub fn start(pool: *Pool, task: Task) void {
        pool.take(task);
        announce(&pool.epoch);
        announce(&pool.handed);
    }

    /// Runs a task before it returns. The calling thread takes the place of the first worker, which sleeps on: with a thread more
    /// than cores, it would have to be woken on a core where a worker waits for the next task.
    pub fn runNow(pool: *Pool, task: Task) void {
        pool.take(task);
        announce(&pool.epoch);
        pool.share(0);
        awaitChange(&pool.finished, 0);
    }

    fn take(pool: *Pool, task: Task) void {
        std.debug.assert(pool.finished.load(.acquire) == 1);
        pool.task = task;
        pool.cancelled.store(false, .monotonic);
        pool.running.store(@intCast(pool.workers.len), .monotonic);
        pool.finished.store(0, .release);
    }

    fn share(pool: *Pool, worker: u32) void {
        pool.task.run(pool.task.context, worker);
        if (pool.running.fetchSub(1, .acq_rel) == 1) {
            pool.finished.store(1, .release);
            os.wakeAll(&pool.finished);
        }
    }

    /// True once the task is finished; waits at most `timeout_ms`.
    pub fn wait(pool: *Pool, timeout_ms: u32) bool {
        const deadline = os.now() + @as(u64, timeout_ms) * std.time.ns_per_ms;
        while (pool.finished.load(.acquire) == 0) {
            const time = os.now();
            if (time >= deadline) return false;
            os.wait(&pool.finished, 0, deadline - time);
        }
        return true;
    }

    /// Asks the running task to end early; the task looks when it can.
    pub fn cancel(pool: *Pool) void {
        pool.cancelled.store(true, .release);
    }

    /// Inside a task: waits until every worker is here. The last to come runs `last(context)` before any goes on.
    pub fn barrier(pool: *Pool, context: anytype, comptime last: fn (@TypeOf(context)) void) void {
        const epoch = pool.barrier_epoch.load(.acquire);
        if (pool.barrier_count.fetchAdd(1, .acq_rel) + 1 == pool.workers.len) {
            last(context);
            pool.barrier_count.store(0, .monotonic);
            announce(&pool.barrier_epoch);
        } else awaitChange(&pool.barrier_epoch, epoch);
    }

    fn work(argument: *anyopaque) void {
        const worker: *Worker = @ptrCast(@alignCast(argument));
        const pool = worker.pool;
        const tasks = if (worker.index == 0) &pool.handed else &pool.epoch;
        var seen: u32 = 0;
        while (true) {
            awaitChange(tasks, seen);
            seen +%= 1;
            if (pool.stopping.load(.acquire)) return;
            pool.share(worker.index);
        }
    }
};

fn announce(counter: *Counter) void {
    _ = counter.fetchAdd(1, .seq_cst);
    os.wakeAll(counter);
}

fn awaitChange(counter: *const Counter, seen: u32) void {
    for (0..spins) |_| {
        if (counter.load(.acquire) != seen) return;
        std.atomic.spinLoopHint();
    }
    while (counter.load(.acquire) == seen) os.wait(counter, seen, 0);
}

test "every worker runs each task once, or the caller in the place of the first; barriers hold" {
    const Sum = struct {
        pool: Pool,
        before: Counter = .init(0),
        after: Counter = .init(0),
        wrong: Counter = .init(0),
        first: std.Thread.Id = 0,

        fn run(context: *anyopaque, worker: u32) void {
            const self: *@This() = @ptrCast(@alignCast(context));
            if (worker == 0) self.first = std.Thread.getCurrentId();
            for (0..50) |round| {
                _ = self.before.fetchAdd(worker + 1, .monotonic);
                self.pool.barrier(self, count);
                if (self.after.load(.monotonic) != (round + 1)) _ = self.wrong.fetchAdd(1, .monotonic);
                self.pool.barrier(self, nothing);
            }
        }
        fn count(self: *@This()) void {
            _ = self.after.fetchAdd(1, .monotonic);
        }
        fn nothing(_: *@This()) void {}
    };
    for ([_]u32{ 1, 2, 3, 5 }) |threads| {
        const sum = try std.testing.allocator.create(Sum);
        defer std.testing.allocator.destroy(sum);
        sum.* = .{ .pool = undefined };
        try sum.pool.init(threads);
        for (0..20) |i| {
            sum.before.store(0, .monotonic);
            sum.after.store(0, .monotonic);
            const task: Task = .{ .context = sum, .run = Sum.run };
            if (i % 3 == 0) {
                sum.pool.start(task);
                while (!sum.pool.wait(100)) {}
            } else sum.pool.runNow(task);
            try std.testing.expectEqual(i % 3 != 0, sum.first == std.Thread.getCurrentId());
            try std.testing.expectEqual(50 * threads * (threads + 1) / 2, sum.before.load(.monotonic));
        }
        try std.testing.expectEqual(0, sum.wrong.load(.monotonic));
        sum.pool.deinit();
    }
}
