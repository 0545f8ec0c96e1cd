// What all exports share: contexts and jobs, the table of handles, and the words of the last error.
// Not the exports: egg.zig, contexts/exports.zig, float/exports.zig. Read next: handles.zig, abi.zig.
const std = @import("std");
const abi = @import("abi.zig");
const benchmark = @import("bench.zig");
const context_ops = @import("contexts/ops.zig");
const float_ops = @import("float/ops.zig");
const float_run = @import("float/run.zig");
const handles = @import("handles.zig");
const ContextEvaluator = @import("contexts/evaluate.zig").Evaluator;
const Contexts = @import("contexts/model.zig").Model;
const ContextTrainer = @import("contexts/eggroll.zig").Trainer;
const Evaluator = @import("int8/evaluate.zig").Evaluator;
const Model = @import("int8/model.zig").Model;
const Pool = @import("pool.zig").Pool;
const Trainer = @import("int8/eggroll.zig").Trainer;
const ops = @import("int8/ops.zig");

/// A pool of threads and the tier of kernels it runs.
pub const Context = struct {
    pool: Pool,
    kernels: *const ops.Table,
    contexts: *const context_ops.Table,
    floats: *const float_ops.Table,
    executor: float_run.Executor,
    /// Instructions that are run once and forgotten (egg_float_run).
    once: float_run.Program = .{},
    job: Job = .none,
};
pub const Job = union(enum) { none, step: *Trainer, evaluate: *Evaluator, context_step: *ContextTrainer, context_evaluate: *ContextEvaluator, program: *float_run.Program };

pub const OwnedModel = struct { model: Model, context: *Context, users: u32 = 0 };
pub const OwnedTrainer = struct { trainer: Trainer, model: *OwnedModel };
pub const OwnedEvaluator = struct { evaluator: Evaluator, model: *OwnedModel };

pub const OwnedBench = struct { bench: benchmark.Bench, context: *Context };

pub const OwnedContexts = struct { model: Contexts, context: *Context, evaluator: ?*ContextEvaluator, users: u32 = 0 };
pub const OwnedContextTrainer = struct { trainer: ContextTrainer, model: *OwnedContexts };

/// Memory that float instructions work on. `users`: programs with addresses in it.
pub const OwnedArena = struct { memory: []align(64) u8, users: u32 = 0 };
pub const OwnedProgram = struct { program: float_run.Program, context: *Context, arenas: []*OwnedArena };

pub const Object = union(enum) {
    context: *Context,
    model: *OwnedModel,
    trainer: *OwnedTrainer,
    evaluator: *OwnedEvaluator,
    bench: *OwnedBench,
    contexts: *OwnedContexts,
    context_trainer: *OwnedContextTrainer,
    arena: *OwnedArena,
    program: *OwnedProgram,
};

pub var objects: handles.Handles(Object) = .{};
pub var error_buffer: [512]u8 = undefined;
pub var error_length: usize = 0;

pub fn finish(result: abi.Error!void) i32 {
    result catch |err| return @intFromEnum(abi.statusOf(err));
    return @intFromEnum(abi.Status.ok);
}

/// Remembers what was wrong, for egg_last_error.
pub fn fail(err: abi.Error, comptime format: []const u8, arguments: anytype) abi.Error {
    const text: []const u8 = std.fmt.bufPrint(&error_buffer, format, arguments) catch &error_buffer;
    error_length = text.len;
    return err;
}

pub fn object(handle: u32, comptime kind: std.meta.Tag(Object)) abi.Error!@FieldType(Object, @tagName(kind)) {
    const found = objects.get(handle) catch |err| return fail(err, "handle {d} is not in use", .{handle});
    if (found.* != kind) return fail(error.StaleHandle, "handle {d} stands for: {t}; expected: {t}", .{ handle, found.*, kind });
    return @field(found, @tagName(kind));
}

pub fn idle(context: *Context) abi.Error!void {
    if (context.job != .none) return fail(error.Busy, "a {t} job is running", .{context.job});
}

pub fn expectBytes(what: []const u8, expected: usize, found: usize) abi.Error!void {
    if (expected != found) return fail(error.BadShape, "{s}: expected {d} bytes, found {d}", .{ what, expected, found });
}

pub fn outOfMemory(what: []const u8, bytes: usize) abi.Error {
    return fail(error.OutOfMemory, "{s} needs {d} bytes", .{ what, bytes });
}

pub const Direction = enum { read, write };

pub fn copy(what: []const u8, native: []u8, buffer: [*]u8, bytes: u32, direction: Direction) abi.Error!void {
    try expectBytes(what, native.len, bytes);
    switch (direction) {
        .write => @memcpy(native, buffer[0..bytes]),
        .read => @memcpy(buffer[0..bytes], native),
    }
}
