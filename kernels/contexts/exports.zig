// The exports of the context model: checks, then one call, as in egg.zig; its rules hold here.
// Not the model (model.zig), the step (eggroll.zig) or the evaluation (evaluate.zig). Read next: src/native/contexts.ts.
const std = @import("std");
const abi = @import("../abi.zig");
const objects = @import("../objects.zig");
const ops = @import("ops.zig");
const os = @import("../os.zig");
const Evaluator = @import("evaluate.zig").Evaluator;
const sums = @import("evaluate.zig").sums;
const Model = @import("model.zig").Model;
const Shape = @import("model.zig").Shape;
const Trainer = @import("eggroll.zig").Trainer;
const TrainerShape = @import("eggroll.zig").Shape;

const gpa = std.heap.page_allocator;
const OwnedContexts = objects.OwnedContexts;
const OwnedContextTrainer = objects.OwnedContextTrainer;
const fail = objects.fail;
const finish = objects.finish;
const object = objects.object;

/// Makes a model of zeros. `tokens`: the token of each of the 256 bytes.
pub export fn egg_contexts_create(context: u32, shape: *align(1) const abi.ContextsShape, tokens: [*]const u8, bytes: u32, out: *align(1) u32) i32 {
    return finish(create(context, shape.*, tokens[0..bytes], out));
}

fn create(handle: u32, shape: abi.ContextsShape, tokens: []const u8, out: *align(1) u32) abi.Error!void {
    const context = try object(handle, .context);
    try range("vocabulary", shape.vocabulary, 1, ops.max_vocabulary);
    try range("order", shape.order, 1, ops.max_order);
    try range("table_bits", shape.table_bits, 4, 24);
    try objects.expectBytes("tokens", 256, tokens.len);
    for (tokens) |token| if (token >= shape.vocabulary) return fail(error.BadArgument, "token {d} of a vocabulary of {d}", .{ token, shape.vocabulary });
    const inner: Shape = .{ .vocabulary = shape.vocabulary, .order = shape.order, .table_bits = shape.table_bits };
    const owned = gpa.create(OwnedContexts) catch return objects.outOfMemory("a model", @sizeOf(OwnedContexts));
    errdefer gpa.destroy(owned);
    owned.* = .{ .model = undefined, .context = context, .evaluator = null };
    owned.model.init(inner, tokens[0..256]) catch return objects.outOfMemory("the model", inner.bytesNeeded());
    errdefer owned.model.deinit();
    out.* = try objects.objects.add(.{ .contexts = owned });
}

fn range(what: []const u8, found: u32, least: u32, most: u32) abi.Error!void {
    if (found < least or found > most) return fail(error.BadShape, "{s}: found {d}, allowed {d} to {d}", .{ what, found, least, most });
}

const Part = enum(u32) { weights = 0, masters = 1 };

/// Rows first .. first + count of one table (context length - 1), without padding: int8 weights (part 0) or int32 masters (part 1).
pub export fn egg_contexts_write(model: u32, table: u32, part: u32, first: u32, count: u32, buffer: [*]const u8, bytes: u32) i32 {
    return finish(copyRows(model, table, part, first, count, @constCast(buffer)[0..bytes], .write));
}

pub export fn egg_contexts_read(model: u32, table: u32, part: u32, first: u32, count: u32, buffer: [*]u8, bytes: u32) i32 {
    return finish(copyRows(model, table, part, first, count, buffer[0..bytes], .read));
}

fn copyRows(handle: u32, table: u32, part: u32, first: u32, count: u32, buffer: []u8, direction: objects.Direction) abi.Error!void {
    const owned = try object(handle, .contexts);
    try objects.idle(owned.context);
    const model = &owned.model;
    if (table >= model.shape.order) return fail(error.BadArgument, "table {d} of {d}", .{ table, model.shape.order });
    const rows = model.shape.rowsOf(table + 1);
    if (first > rows or count > rows - first) return fail(error.BadArgument, "rows {d} + {d} of {d}", .{ first, count, rows });
    const size = model.shape.vocabulary;
    switch (std.enums.fromInt(Part, part) orelse return fail(error.BadArgument, "part {d} does not exist", .{part})) {
        inline else => |kind| {
            const memory = if (kind == .weights) model.weights else model.masters;
            const element = @sizeOf(std.meta.Elem(@TypeOf(memory)));
            try objects.expectBytes("rows", @as(usize, count) * size * element, buffer.len);
            for (0..count) |row| {
                const native = std.mem.sliceAsBytes(memory[(model.first[table] + first + row) * model.width ..][0..size]);
                const outside = buffer[row * native.len ..][0..native.len];
                switch (direction) {
                    .write => @memcpy(native, outside),
                    .read => @memcpy(outside, native),
                }
            }
        },
    }
}

pub export fn egg_contexts_trainer_create(model: u32, shape: *align(1) const abi.ContextsTrainerShape, out: *align(1) u32) i32 {
    return finish(createTrainer(model, shape.*, out));
}

fn createTrainer(handle: u32, shape: abi.ContextsTrainerShape, out: *align(1) u32) abi.Error!void {
    const owned = try object(handle, .contexts);
    try objects.idle(owned.context);
    const inner = try trainerShape(shape);
    const threads: u32 = @intCast(owned.context.pool.workers.len);
    const trainer = gpa.create(OwnedContextTrainer) catch return objects.outOfMemory("a trainer", @sizeOf(OwnedContextTrainer));
    errdefer gpa.destroy(trainer);
    trainer.model = owned;
    trainer.trainer.init(&owned.model, owned.context.contexts, &owned.context.pool, inner) catch {
        return objects.outOfMemory("the population", Trainer.bytesNeeded(&owned.model, inner, threads));
    };
    errdefer trainer.trainer.deinit();
    out.* = try objects.objects.add(.{ .context_trainer = trainer });
    owned.users += 1;
}

fn trainerShape(shape: abi.ContextsTrainerShape) abi.Error!TrainerShape {
    try range("groups", shape.groups, 1, 1 << 16);
    try range("positions", shape.positions, 1, 1 << 12);
    if (@as(u64, shape.groups) * shape.positions > 1 << 22) return fail(error.BadShape, "{d} groups of {d} positions, allowed 4194304 together", .{ shape.groups, shape.positions });
    try range("shift", shape.shift, 0, 15);
    try range("fitness_shift", shape.fitness_shift, 0, 15);
    try range("cap", shape.cap, 1, 1 << 30);
    try range("decay_shift", shape.decay_shift, 0, 30);
    return .{
        .groups = shape.groups,
        .positions = shape.positions,
        .seed = shape.seed,
        .shift = shape.shift,
        .fitness_shift = shape.fitness_shift,
        .cap = shape.cap,
        .decay_every = shape.decay_every,
        .decay_shift = shape.decay_shift,
    };
}

/// Memory a trainer of this shape takes besides its model, in bytes, without making it.
pub export fn egg_contexts_trainer_bytes(model: u32, shape: *align(1) const abi.ContextsTrainerShape, out: *align(1) f64) i32 {
    const owned = object(model, .contexts) catch |err| return finish(err);
    const inner = trainerShape(shape.*) catch |err| return finish(err);
    out.* = @floatFromInt(Trainer.bytesNeeded(&owned.model, inner, @intCast(owned.context.pool.workers.len)));
    return finish({});
}

/// Starts step number `step` on the text of all groups, [groups][order + positions] bytes; `rate` of contexts/ops.zig, Move.
/// egg_wait, then egg_contexts_step_finish.
pub export fn egg_contexts_step_start(trainer: u32, step: u32, rate: u32, buffer: [*]const u8, bytes: u32) i32 {
    const owned = object(trainer, .context_trainer) catch |err| return finish(err);
    const context = owned.model.context;
    objects.idle(context) catch |err| return finish(err);
    if (rate > std.math.maxInt(i32)) return finish(fail(error.BadArgument, "rate: found {d}, allowed 0 to 2147483647", .{rate}));
    objects.copy("batch", owned.trainer.batch, @constCast(buffer), bytes, .write) catch |err| return finish(err);
    context.job = .{ .context_step = &owned.trainer };
    owned.trainer.start(step, rate);
    return finish({});
}

/// Ends a step: `cancelled` when it was, and then nothing has changed. The loss is in bits, of all members and positions.
pub export fn egg_contexts_step_finish(trainer: u32, out: *align(1) abi.ContextsResult) i32 {
    return finish(finishStep(trainer, out));
}

fn finishStep(handle: u32, out: *align(1) abi.ContextsResult) abi.Error!void {
    const owned = try object(handle, .context_trainer);
    const context = owned.model.context;
    if (context.job != .context_step or context.job.context_step != &owned.trainer) return fail(error.BadArgument, "no step was started", .{});
    if (!context.pool.wait(0)) return fail(error.Busy, "the step is still running", .{});
    context.job = .none;
    const result = owned.trainer.finish() orelse return fail(error.Cancelled, "the step was cancelled", .{});
    const spent = owned.trainer.spent();
    out.* = .{
        .loss = @as(f64, @floatFromInt(result.loss)) / 256,
        .plus = @floatFromInt(result.plus),
        .minus = @floatFromInt(result.minus),
        .changed = @floatFromInt(result.changed),
        .noise = seconds(spent.noise),
        .forward = seconds(spent.forward),
        .update = seconds(spent.update),
    };
}

fn seconds(ns: u64) f64 {
    return @as(f64, @floatFromInt(ns)) / std.time.ns_per_s;
}

/// Differences of the losses in the last step, minus side less plus side, i32 [groups][positions][16], in 1/256 bit.
pub export fn egg_contexts_step_differences(trainer: u32, buffer: [*]u8, bytes: u32) i32 {
    const owned = object(trainer, .context_trainer) catch |err| return finish(err);
    return finish(objects.copy("differences", std.mem.sliceAsBytes(owned.trainer.differences), buffer, bytes, .read));
}

/// Starts an evaluation of text[order..] with clean weights; the first `order` bytes are only context. The buffer is borrowed until
/// the end. A byte whose token is `other` costs `penalty` bits besides (other = 256: there is none).
/// egg_wait, then egg_contexts_evaluate_finish.
pub export fn egg_contexts_evaluate_start(model: u32, other: u32, penalty: f64, buffer: [*]const u8, bytes: u32) i32 {
    return finish(startEvaluation(model, other, penalty, buffer[0..bytes]));
}

fn startEvaluation(handle: u32, other: u32, penalty: f64, text: []const u8) abi.Error!void {
    const owned = try object(handle, .contexts);
    try objects.idle(owned.context);
    if (text.len <= owned.model.shape.order) return fail(error.BadShape, "text: expected more than {d} bytes, found {d}", .{ owned.model.shape.order, text.len });
    const own = os.allocate(u8, text.len) catch return objects.outOfMemory("a piece of text", text.len);
    errdefer os.free(own);
    @memcpy(own, text);
    const pieces = Evaluator.pieces(&owned.model, text.len);
    const evaluator = gpa.create(Evaluator) catch return objects.outOfMemory("an evaluation", @sizeOf(Evaluator));
    errdefer gpa.destroy(evaluator);
    evaluator.* = .{
        .model = &owned.model,
        .pool = &owned.context.pool,
        .text = own,
        .penalty = penalty,
        .other = if (other < 256) @intCast(other) else null,
        .bits = gpa.alloc(f64, pieces) catch return objects.outOfMemory("an evaluation", 8 * pieces),
        .next_piece = undefined,
        .done = undefined,
    };
    owned.evaluator = evaluator;
    owned.context.job = .{ .context_evaluate = evaluator };
    evaluator.start();
}

/// Ends an evaluation: the sum of the bits of all predicted bytes, or `cancelled`.
pub export fn egg_contexts_evaluate_finish(model: u32, out: *align(1) f64) i32 {
    return finish(finishEvaluation(model, out));
}

fn finishEvaluation(handle: u32, out: *align(1) f64) abi.Error!void {
    const owned = try object(handle, .contexts);
    const evaluator = owned.evaluator orelse return fail(error.BadArgument, "no evaluation was started", .{});
    if (!owned.context.pool.wait(0)) return fail(error.Busy, "the evaluation is still running", .{});
    owned.context.job = .none;
    owned.evaluator = null;
    const bits = evaluator.finish();
    os.free(@constCast(@as([]align(64) const u8, @alignCast(evaluator.text))));
    gpa.free(evaluator.bits);
    gpa.destroy(evaluator);
    out.* = bits orelse return fail(error.Cancelled, "the evaluation was cancelled", .{});
}

/// The logits behind a context of `order` bytes, i32 [vocabulary], in 1/16 bit.
pub export fn egg_contexts_logits(model: u32, text: [*]const u8, bytes: u32, buffer: [*]u8, buffer_bytes: u32) i32 {
    return finish(logitsOf(model, text[0..bytes], buffer[0..buffer_bytes]));
}

fn logitsOf(handle: u32, text: []const u8, buffer: []u8) abi.Error!void {
    const owned = try object(handle, .contexts);
    try objects.idle(owned.context);
    try objects.expectBytes("context", owned.model.shape.order, text.len);
    try objects.expectBytes("logits", 4 * @as(usize, owned.model.shape.vocabulary), buffer.len);
    var logits: [ops.max_vocabulary]i32 = undefined;
    sums(&owned.model, text, text.len, &logits);
    @memcpy(buffer, std.mem.sliceAsBytes(logits[0..owned.model.shape.vocabulary]));
}

/// For egg_release.
pub fn releaseModel(owned: *OwnedContexts) abi.Error!void {
    try objects.idle(owned.context);
    if (owned.users != 0) return fail(error.Busy, "{d} trainers still use the model", .{owned.users});
    owned.model.deinit();
    gpa.destroy(owned);
}

/// For egg_release.
pub fn releaseTrainer(owned: *OwnedContextTrainer) abi.Error!void {
    try objects.idle(owned.model.context);
    owned.model.users -= 1;
    owned.trainer.deinit();
    gpa.destroy(owned);
}
