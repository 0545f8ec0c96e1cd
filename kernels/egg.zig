// The library's exports but those of the context model and of floats (contexts/exports.zig, float/exports.zig): checks, then one call.
// src/native/abi.ts lists the same.
// Every function returns a Status unless it says otherwise; buffers are borrowed for the call and never kept.
// Read next: int8/eggroll.zig (a training step), int8/ops.zig (the kernels), cpu.zig (tiers), pool.zig (threads).
const std = @import("std");
const abi = @import("abi.zig");
const benchmark = @import("bench.zig");
const cpu = @import("cpu.zig");
const contexts = @import("contexts/exports.zig");
const floats = @import("float/exports.zig");
const objects = @import("objects.zig");
const os = @import("os.zig");
const layout = @import("int8/layout.zig");
const Evaluator = @import("int8/evaluate.zig").Evaluator;
const Model = @import("int8/model.zig").Model;
const Rule = @import("int8/rule.zig").Rule;
const egg_c = @import("int8/egg_c.zig");
const nano_egg = @import("int8/nano_egg.zig");
const Trainer = @import("int8/eggroll.zig").Trainer;
const ops = @import("int8/ops.zig");

const gpa = std.heap.page_allocator;
const Context = objects.Context;
const Direction = objects.Direction;
const OwnedBench = objects.OwnedBench;
const OwnedEvaluator = objects.OwnedEvaluator;
const OwnedModel = objects.OwnedModel;
const OwnedTrainer = objects.OwnedTrainer;
const copy = objects.copy;
const expectBytes = objects.expectBytes;
const fail = objects.fail;
const finish = objects.finish;
const idle = objects.idle;
const object = objects.object;
const outOfMemory = objects.outOfMemory;

/// Returns the hash of the manifest; not a status.
pub export fn egg_abi_hash() u32 {
    return comptime abi.hash(manifest);
}

/// Copies the manifest and returns its length; not a status.
pub export fn egg_manifest(buffer: [*]u8, bytes: u32) i32 {
    const length = @min(bytes, manifest.len);
    @memcpy(buffer[0..length], manifest[0..length]);
    return @intCast(manifest.len);
}

/// Copies the text of the last error and returns its length; not a status.
pub export fn egg_last_error(buffer: [*]u8, bytes: u32) i32 {
    const length = @min(bytes, objects.error_length);
    @memcpy(buffer[0..length], objects.error_buffer[0..length]);
    return @intCast(length);
}

/// CPU features and tiers (bits by cpu.Feature and cpu.Tier).
pub export fn egg_cpu(out: *align(1) abi.CpuInfo) i32 {
    var info: abi.CpuInfo = .{ .features = cpu.detect().bits.mask, .available = 0, .built = 0, .best = @intFromEnum(cpu.best()) };
    for (std.enums.values(cpu.Tier)) |tier| {
        const bit = @as(u32, 1) << @intCast(@intFromEnum(tier));
        if (tier.kernels() != null) info.built |= bit;
        if (cpu.available(tier)) info.available |= bit;
    }
    out.* = info;
    return finish({});
}

/// Takes an exclusive lock on an open file; `held` when another process has it.
pub export fn egg_lock_file(fd: u32) i32 {
    return finish(os.lockFile(@intCast(fd & 0x7fffffff)) catch |err| switch (err) {
        error.Held => fail(error.Held, "file is locked", .{}),
        error.BadFile => fail(error.BadArgument, "file descriptor {d} cannot be locked", .{fd}),
    });
}

/// Starts `threads` (1..1024) workers with the kernels of `tier` (cpu.Tier).
pub export fn egg_open(threads: u32, tier: u32, out: *align(1) u32) i32 {
    return finish(open(threads, tier, out));
}

fn open(threads: u32, tier_number: u32, out: *align(1) u32) abi.Error!void {
    if (threads < 1 or threads > 1024) return fail(error.BadArgument, "threads: found {d}, allowed 1 to 1024", .{threads});
    const tier = std.enums.fromInt(cpu.Tier, tier_number) orelse return fail(error.BadArgument, "tier {d} is unknown", .{tier_number});
    if (!cpu.available(tier)) return fail(error.Unsupported, "this machine cannot run the {t} kernels", .{tier});
    const context = gpa.create(Context) catch return outOfMemory("a context", @sizeOf(Context));
    errdefer gpa.destroy(context);
    context.* = .{ .pool = undefined, .kernels = tier.kernels().?, .contexts = tier.contexts().?, .floats = tier.floats().?, .executor = .{ .pool = &context.pool } };
    context.pool.init(threads) catch |err| return switch (err) {
        error.OutOfMemory => outOfMemory("the thread table", threads * 64),
        error.NoThread => fail(error.NoThread, "the system refused to start {d} threads", .{threads}),
    };
    errdefer context.pool.deinit();
    out.* = try objects.objects.add(.{ .context = context });
}

pub export fn egg_int8_model_create(context: u32, shape: *align(1) const abi.ModelShape, out: *align(1) u32) i32 {
    return finish(createModel(context, shape.*, out));
}

fn createModel(handle: u32, shape: abi.ModelShape, out: *align(1) u32) abi.Error!void {
    const context = try object(handle, .context);
    if (shape.layers < 1 or shape.layers > 1024) return fail(error.BadShape, "layers: found {d}, allowed 1 to 1024", .{shape.layers});
    const rule = std.enums.fromInt(Rule, shape.rule) orelse return fail(error.BadShape, "rule: {d} is unknown", .{shape.rule});
    if (shape.hidden < 16 or shape.hidden > rule.hiddenMax() or shape.hidden % 16 != 0) {
        return fail(error.BadShape, "hidden: found {d}, allowed a multiple of 16 from 16 to {d}", .{ shape.hidden, rule.hiddenMax() });
    }
    if (shape.vocabulary < 16 or shape.vocabulary > 256 or shape.vocabulary % 16 != 0) {
        return fail(error.BadShape, "vocabulary: found {d}, allowed a multiple of 16 from 16 to 256", .{shape.vocabulary});
    }
    const inner: @import("int8/model.zig").Shape = .{ .rule = rule, .layers = shape.layers, .hidden = shape.hidden, .vocabulary = shape.vocabulary };
    const owned = gpa.create(OwnedModel) catch return outOfMemory("a model", @sizeOf(OwnedModel));
    errdefer gpa.destroy(owned);
    owned.* = .{ .model = undefined, .context = context };
    owned.model.init(inner, context.kernels.bias) catch return outOfMemory("the model", Model.bytesNeeded(inner));
    errdefer owned.model.deinit();
    out.* = try objects.objects.add(.{ .model = owned });
}

/// Sets all weights to the rule's initial ones; `seed` is the run's.
pub export fn egg_int8_model_initialize(model: u32, seed: u32) i32 {
    const owned = object(model, .model) catch |err| return finish(err);
    idle(owned.context) catch |err| return finish(err);
    switch (owned.model.shape.rule) {
        .egg_c => egg_c.initialize(&owned.model),
        .nano_egg => nano_egg.initialize(&owned.model, seed),
    }
    for (0..owned.model.tensors.len) |tensor| owned.model.sumRows(tensor);
    return finish({});
}

/// Writes one tensor (int8, row-major) by its number (model.zig: outer tensors, then layer by layer).
pub export fn egg_int8_model_write(model: u32, tensor: u32, buffer: [*]const u8, bytes: u32) i32 {
    return finish(copyTensor(model, tensor, @constCast(buffer), bytes, .write));
}

pub export fn egg_int8_model_read(model: u32, tensor: u32, buffer: [*]u8, bytes: u32) i32 {
    return finish(copyTensor(model, tensor, buffer, bytes, .read));
}

fn copyTensor(handle: u32, index: u32, buffer: [*]u8, bytes: u32, direction: Direction) abi.Error!void {
    const owned = try object(handle, .model);
    try idle(owned.context);
    const tensor = owned.model.tensor(index) orelse return fail(error.BadArgument, "tensor {d} does not exist", .{index});
    try expectBytes("tensor", tensor.len, bytes);
    if (direction == .write and std.mem.indexOfScalar(u8, buffer[0..bytes], 0x80) != null) {
        return fail(error.BadShape, "a weight of -128, where -127 is the least", .{});
    }
    try copy("tensor", std.mem.sliceAsBytes(tensor), buffer, bytes, direction);
    if (direction == .write) owned.model.sumRows(index);
}

pub export fn egg_int8_trainer_create(model: u32, shape: *align(1) const abi.TrainerShape, out: *align(1) u32) i32 {
    return finish(createTrainer(model, shape.*, out));
}

fn createTrainer(handle: u32, shape: abi.TrainerShape, out: *align(1) u32) abi.Error!void {
    const owned = try object(handle, .model);
    try idle(owned.context);
    if (shape.pairs < 1 or shape.pairs > 1 << 20) return fail(error.BadShape, "pairs: found {d}, allowed 1 to 1048576", .{shape.pairs});
    if (shape.sequence < 1 or shape.sequence > 1 << 20) return fail(error.BadShape, "sequence: found {d}, allowed 1 to 1048576", .{shape.sequence});
    if (shape.pairs_per_stream < 1 or shape.pairs_per_stream > shape.pairs) return fail(error.BadShape, "pairs_per_stream: found {d}, allowed 1 to {d}", .{ shape.pairs_per_stream, shape.pairs });
    const noise_max: u64 = owned.model.shape.rule.noiseMax();
    if (shape.pairs * noise_max * noise_max > std.math.maxInt(i32)) return fail(error.BadShape, "pairs: the votes of {d} do not fit 32 bits", .{shape.pairs});
    if (shape.sigma_shift > 8) return fail(error.BadShape, "sigma_shift: found {d}, allowed 0 to 8", .{shape.sigma_shift});
    if (shape.panel_groups > layout.max_groups) return fail(error.BadShape, "panel_groups: found {d}, allowed 0 to 4", .{shape.panel_groups});
    const inner: @import("int8/eggroll.zig").Shape = .{
        .pairs = shape.pairs,
        .sequence = shape.sequence,
        .pairs_per_stream = shape.pairs_per_stream,
        .perturb_shift = 4 + shape.sigma_shift,
        .seed = shape.seed,
        .signs = shape.signs != 0,
        .panel_groups = shape.panel_groups,
        .mode = std.enums.fromInt(Trainer.Mode, shape.mode) orelse return fail(error.BadShape, "mode: found {d}, allowed 0 to 2", .{shape.mode}),
    };
    const trainer = gpa.create(OwnedTrainer) catch return outOfMemory("a trainer", @sizeOf(OwnedTrainer));
    errdefer gpa.destroy(trainer);
    trainer.model = owned;
    trainer.trainer.init(&owned.model, owned.context.kernels, &owned.context.pool, inner) catch {
        return outOfMemory("the population", Trainer.bytesNeeded(&owned.model, inner, @intCast(owned.context.pool.workers.len)));
    };
    errdefer trainer.trainer.deinit();
    out.* = try objects.objects.add(.{ .trainer = trainer });
    owned.users += 1;
}

/// Memory a trainer of this shape takes besides its model, in bytes, without making it.
pub export fn egg_int8_trainer_bytes(model: u32, shape: *align(1) const abi.TrainerShape, out: *align(1) f64) i32 {
    const owned = object(model, .model) catch |err| return finish(err);
    out.* = @floatFromInt(Trainer.bytesNeeded(&owned.model, .{
        .pairs = shape.pairs,
        .sequence = shape.sequence,
        .pairs_per_stream = @max(1, shape.pairs_per_stream),
        .perturb_shift = 0,
        .panel_groups = shape.panel_groups,
        .mode = std.enums.fromInt(Trainer.Mode, shape.mode) orelse .auto,
    }, @intCast(owned.context.pool.workers.len)));
    return finish({});
}

/// Writes the streams of the next step: [pairs / pairs_per_stream, rounded up][sequence + 1] bytes.
pub export fn egg_int8_trainer_batch(trainer: u32, buffer: [*]const u8, bytes: u32) i32 {
    const owned = object(trainer, .trainer) catch |err| return finish(err);
    idle(owned.model.context) catch |err| return finish(err);
    return finish(copy("batch", owned.trainer.batch, @constCast(buffer), bytes, .write));
}

/// States of members first .. first + count: [count][layers][hidden] bytes.
pub export fn egg_int8_trainer_states_write(trainer: u32, first: u32, count: u32, buffer: [*]const u8, bytes: u32) i32 {
    return finish(copyStates(trainer, first, count, @constCast(buffer), bytes, .write));
}

pub export fn egg_int8_trainer_states_read(trainer: u32, first: u32, count: u32, buffer: [*]u8, bytes: u32) i32 {
    return finish(copyStates(trainer, first, count, buffer, bytes, .read));
}

fn copyStates(handle: u32, first: u32, count: u32, buffer: [*]u8, bytes: u32, direction: Direction) abi.Error!void {
    const owned = try object(handle, .trainer);
    try idle(owned.model.context);
    const members = 2 * owned.trainer.shape.pairs;
    if (first > members or count > members - first) return fail(error.BadArgument, "members {d} + {d} of {d}", .{ first, count, members });
    const size = owned.trainer.states.len / members;
    try copy("states", std.mem.sliceAsBytes(owned.trainer.states[first * size ..][0 .. count * size]), buffer, bytes, direction);
}

/// Starts a training step on the batch; egg_wait, then egg_int8_step_finish.
pub export fn egg_int8_step_start(trainer: u32, order: *align(1) const abi.StepOrder) i32 {
    const owned = object(trainer, .trainer) catch |err| return finish(err);
    const context = owned.model.context;
    idle(context) catch |err| return finish(err);
    if (order.threshold > std.math.maxInt(i32)) return finish(fail(error.BadArgument, "threshold: found {d}, allowed 0 to 2147483647", .{order.threshold}));
    context.job = .{ .step = &owned.trainer };
    owned.trainer.start(.{ .seed = order.seed, .threshold = order.threshold });
    return finish({});
}

/// Ends a step: `cancelled` when it was, and then nothing has changed.
pub export fn egg_int8_step_finish(trainer: u32, out: *align(1) abi.StepResult) i32 {
    return finish(finishStep(trainer, out));
}

fn finishStep(handle: u32, out: *align(1) abi.StepResult) abi.Error!void {
    const owned = try object(handle, .trainer);
    const context = owned.model.context;
    if (context.job != .step or context.job.step != &owned.trainer) return fail(error.BadArgument, "no step was started", .{});
    if (!context.pool.wait(0)) return fail(error.Busy, "the step is still running", .{});
    context.job = .none;
    if (!owned.trainer.finish()) return fail(error.Cancelled, "the step was cancelled", .{});
    var result: abi.StepResult = .{ .changed = @floatFromInt(owned.trainer.changed.load(.acquire)), .loss_sum = 0, .plus = 0, .minus = 0 };
    var losses: i64 = 0;
    for (owned.trainer.losses) |loss| losses += loss;
    result.loss_sum = @floatFromInt(losses);
    for (owned.trainer.fitness) |fitness| {
        if (fitness > 0) result.plus += 1;
        if (fitness < 0) result.minus += 1;
    }
    out.* = result;
}

/// Integer losses of the last step, i32 [2 * pairs] (member 2p is pair p's plus side), in 1/16 bit, summed over the sequence.
pub export fn egg_int8_step_losses(trainer: u32, buffer: [*]u8, bytes: u32) i32 {
    const owned = object(trainer, .trainer) catch |err| return finish(err);
    return finish(copy("losses", std.mem.sliceAsBytes(owned.trainer.losses), buffer, bytes, .read));
}

/// Streams read side by side with clean weights, windows of at most `length` tokens.
pub export fn egg_int8_evaluator_create(model: u32, streams: u32, length: u32, out: *align(1) u32) i32 {
    return finish(createEvaluator(model, streams, length, out));
}

fn createEvaluator(handle: u32, streams: u32, length: u32, out: *align(1) u32) abi.Error!void {
    const owned = try object(handle, .model);
    try idle(owned.context);
    if (streams < 1 or streams > 1 << 16) return fail(error.BadShape, "streams: found {d}, allowed 1 to 65536", .{streams});
    if (length < 1 or length > 1 << 20) return fail(error.BadShape, "length: found {d}, allowed 1 to 1048576", .{length});
    const evaluator = gpa.create(OwnedEvaluator) catch return outOfMemory("an evaluator", @sizeOf(OwnedEvaluator));
    errdefer gpa.destroy(evaluator);
    evaluator.model = owned;
    evaluator.evaluator.init(&owned.model, owned.context.kernels, &owned.context.pool, streams, length) catch {
        return outOfMemory("evaluation", Evaluator.bytesNeeded(&owned.model, streams, length, @intCast(owned.context.pool.workers.len)));
    };
    errdefer evaluator.evaluator.deinit();
    out.* = try objects.objects.add(.{ .evaluator = evaluator });
    owned.users += 1;
}

/// States of all streams: [streams][layers][hidden] bytes.
pub export fn egg_int8_evaluator_states_write(evaluator: u32, buffer: [*]const u8, bytes: u32) i32 {
    return finish(copyStreams(evaluator, @constCast(buffer), bytes, .write));
}

pub export fn egg_int8_evaluator_states_read(evaluator: u32, buffer: [*]u8, bytes: u32) i32 {
    return finish(copyStreams(evaluator, buffer, bytes, .read));
}

fn copyStreams(handle: u32, buffer: [*]u8, bytes: u32, direction: Direction) abi.Error!void {
    const owned = try object(handle, .evaluator);
    try idle(owned.model.context);
    try copy("states", std.mem.sliceAsBytes(owned.evaluator.states), buffer, bytes, direction);
}

/// Starts reading a window: [streams][length + 1] bytes; egg_wait, then egg_int8_evaluate_finish.
pub export fn egg_int8_evaluate_start(evaluator: u32, length: u32, buffer: [*]const u8, bytes: u32) i32 {
    return finish(startEvaluate(evaluator, length, buffer, bytes));
}

fn startEvaluate(handle: u32, length: u32, buffer: [*]const u8, bytes: u32) abi.Error!void {
    const owned = try object(handle, .evaluator);
    const context = owned.model.context;
    try idle(context);
    const window = @as(usize, owned.evaluator.streams) * (@as(usize, length) + 1);
    if (length < 1 or window > owned.evaluator.batch.len) return fail(error.BadShape, "a window of {d} tokens does not fit", .{length});
    try copy("window", owned.evaluator.batch[0..window], @constCast(buffer), bytes, .write);
    context.job = .{ .evaluate = &owned.evaluator };
    owned.evaluator.start(length);
}

/// Ends a window; `cancelled` when it was, and then the states must be set again.
pub export fn egg_int8_evaluate_finish(evaluator: u32, out: *align(1) abi.EvaluateResult) i32 {
    return finish(finishEvaluate(evaluator, out));
}

fn finishEvaluate(handle: u32, out: *align(1) abi.EvaluateResult) abi.Error!void {
    const owned = try object(handle, .evaluator);
    const context = owned.model.context;
    if (context.job != .evaluate or context.job.evaluate != &owned.evaluator) return fail(error.BadArgument, "no evaluation was started", .{});
    if (!context.pool.wait(0)) return fail(error.Busy, "the evaluation is still running", .{});
    context.job = .none;
    const evaluator = &owned.evaluator;
    if (!evaluator.finish()) return fail(error.Cancelled, "the evaluation was cancelled", .{});
    var losses: i64 = 0;
    var bits: f64 = 0;
    for (evaluator.losses, evaluator.bits) |loss, sum| {
        losses += loss;
        bits += sum;
    }
    out.* = .{ .tokens = @floatFromInt(@as(u64, evaluator.streams) * evaluator.length), .bits = bits, .loss_sum = @floatFromInt(losses) };
}

/// Reads `text` with the first stream, on the calling thread; then the next token's logits, int8 [vocabulary].
pub export fn egg_int8_feed(evaluator: u32, text: [*]const u8, text_bytes: u32, logits: [*]u8, logits_bytes: u32) i32 {
    return finish(feed(evaluator, text[0..text_bytes], @ptrCast(logits[0..logits_bytes])));
}

fn feed(handle: u32, text: []const u8, logits: []i8) abi.Error!void {
    const owned = try object(handle, .evaluator);
    try idle(owned.model.context);
    if (text.len == 0) return fail(error.BadShape, "no text to read", .{});
    if (owned.evaluator.streams != 1) return fail(error.BadShape, "{d} streams cannot be fed as one", .{owned.evaluator.streams});
    try expectBytes("logits", owned.model.model.shape.vocabulary, logits.len);
    for (text) |token| if (token >= owned.model.model.shape.vocabulary) return fail(error.BadArgument, "token {d} is not in the vocabulary", .{token});
    owned.evaluator.feed(text, logits);
}

/// Waits at most `timeout_ms` for the context's job and tells how far it is.
pub export fn egg_wait(context: u32, timeout_ms: u32, out: *align(1) abi.Progress) i32 {
    const found = object(context, .context) catch |err| return finish(err);
    const finished = found.pool.wait(timeout_ms);
    out.* = switch (found.job) {
        .none => .{ .finished = 1, .share = 0 },
        inline else => |job| .{ .finished = @intFromBool(finished), .share = share(job.done.load(.monotonic), job.work()) },
    };
    return finish({});
}

/// In 1/65536.
fn share(done: u64, total: u64) u32 {
    return @intCast(@divFloor(@as(u128, done) << 16, @max(total, 1)));
}

/// Asks the context's job to end early.
pub export fn egg_cancel(context: u32) i32 {
    const found = object(context, .context) catch |err| return finish(err);
    found.pool.cancel();
    return finish({});
}

/// Prepares one thing to measure (bench.zig); egg_release frees it.
pub export fn egg_bench_open(context: u32, shape: *align(1) const abi.BenchShape, out: *align(1) u32) i32 {
    return finish(openBench(context, shape.*, out));
}

fn openBench(handle: u32, shape: abi.BenchShape, out: *align(1) u32) abi.Error!void {
    const context = try object(handle, .context);
    try idle(context);
    const what = std.enums.fromInt(benchmark.What, shape.what) orelse return fail(error.BadArgument, "benchmark {d} is unknown", .{shape.what});
    const matrix = what == .matmul or what == .noise or what == .update;
    if (matrix and (shape.rows < 16 or shape.rows > 1 << 14 or shape.rows % 16 != 0 or shape.cols < 16 or shape.cols > 1 << 14 or shape.cols % 16 != 0)) {
        return fail(error.BadShape, "matrix: found {d} x {d}, allowed multiples of 16 from 16 to 16384", .{ shape.rows, shape.cols });
    }
    const groups_max: u32 = if (what == .matmul) layout.max_groups else if (what == .update) ops.update_groups else 1 << 12;
    if (matrix and (shape.groups < 1 or shape.groups > groups_max)) return fail(error.BadShape, "groups: found {d}, allowed 1 to {d}", .{ shape.groups, groups_max });
    if (what == .matmul and (shape.panels < 1 or shape.panels > 1 << 12)) return fail(error.BadShape, "panels: found {d}, allowed 1 to 4096", .{shape.panels});
    if (what == .update and (shape.layers < 1 or shape.layers > 1024 or shape.hidden < 16 or shape.hidden > 4096 or shape.hidden % 16 != 0)) {
        return fail(error.BadShape, "model: found {d} layers of {d}", .{ shape.layers, shape.hidden });
    }
    if (shape.kib > 1 << 22) return fail(error.BadShape, "kib: found {d}, allowed 0 to 4194304", .{shape.kib});
    const owned = gpa.create(OwnedBench) catch return outOfMemory("a benchmark", @sizeOf(OwnedBench));
    errdefer gpa.destroy(owned);
    owned.context = context;
    owned.bench.init(.{
        .what = what,
        .rows = shape.rows,
        .cols = shape.cols,
        .groups = shape.groups,
        .panels = shape.panels,
        .hidden = shape.hidden,
        .layers = shape.layers,
        .kib = shape.kib,
    }, context.kernels, context.floats, &context.pool) catch |err| return switch (err) {
        error.OutOfMemory => fail(error.OutOfMemory, "there is not enough memory for this benchmark", .{}),
        error.BadShape => fail(error.BadShape, "the model has no matrix of {d} x {d}", .{ shape.rows, shape.cols }),
    };
    errdefer owned.bench.deinit();
    out.* = try objects.objects.add(.{ .bench = owned });
}

/// Measures one window of `repeats` pieces of work, on the calling thread or on all threads at once, and returns when it is over.
pub export fn egg_bench_window(bench: u32, repeats: u32, all_threads: u32, out: *align(1) abi.BenchWindow) i32 {
    return finish(measureWindow(bench, repeats, all_threads, out));
}

fn measureWindow(handle: u32, repeats: u32, all_threads: u32, out: *align(1) abi.BenchWindow) abi.Error!void {
    const owned = try object(handle, .bench);
    try idle(owned.context);
    if (repeats < 1 or repeats > 1 << 24) return fail(error.BadArgument, "repeats: found {d}, allowed 1 to 16777216", .{repeats});
    if (all_threads != 0 and owned.bench.shape.what == .update) return fail(error.BadArgument, "the update is measured on one thread", .{});
    const window = owned.bench.window(repeats, all_threads != 0);
    out.* = .{ .seconds = window.seconds, .cpu_seconds = window.cpu_seconds, .work = window.work };
}

/// CPU time of a trainer's last step by phase.
pub export fn egg_bench_phases(trainer: u32, out: *align(1) abi.BenchPhases) i32 {
    const owned = object(trainer, .trainer) catch |err| return finish(err);
    idle(owned.model.context) catch |err| return finish(err);
    const spent = owned.trainer.spent();
    out.* = .{ .noise = benchmark.seconds(spent.noise), .forward = benchmark.seconds(spent.forward), .update = benchmark.seconds(spent.update) };
    return finish({});
}

/// Frees what a handle stands for. A model must outlive its trainers and evaluators; contexts live as long as the process.
pub export fn egg_release(handle: u32) i32 {
    return finish(release(handle));
}

fn release(handle: u32) abi.Error!void {
    switch ((objects.objects.get(handle) catch |err| return fail(err, "handle {d} is not in use", .{handle})).*) {
        .context => return fail(error.Unsupported, "a context lives as long as the process", .{}),
        .model => |owned| {
            if (owned.users != 0) return fail(error.Busy, "{d} trainers or evaluators still use the model", .{owned.users});
            owned.model.deinit();
            gpa.destroy(owned);
        },
        inline .trainer, .evaluator => |owned, kind| {
            try idle(owned.model.context);
            owned.model.users -= 1;
            if (kind == .trainer) owned.trainer.deinit() else owned.evaluator.deinit();
            gpa.destroy(owned);
        },
        .bench => |owned| {
            try idle(owned.context);
            owned.bench.deinit();
            gpa.destroy(owned);
        },
        .contexts => |owned| try contexts.releaseModel(owned),
        .context_trainer => |owned| try contexts.releaseTrainer(owned),
        .arena => |owned| try floats.releaseArena(owned),
        .program => |owned| try floats.releaseProgram(owned),
    }
    _ = objects.objects.remove(handle) catch unreachable;
}

const manifest = abi.manifest(.{ @This(), contexts, floats });

/// A failed safety check cannot be survived: say what it was, then end the process.
fn fatal(message: [*]const u8, length: usize) callconv(.c) noreturn {
    os.writeError("egg: bug in the kernels: ");
    os.writeError(message[0..length]);
    os.writeError("\n");
    @trap();
}

pub const panic = std.debug.FullPanic(struct {
    fn panicFn(message: []const u8, _: ?usize) noreturn {
        fatal(message.ptr, message.len);
    }
}.panicFn);

comptime {
    _ = floats; // its exports too
    // For the tiers' objects, not for the world.
    @export(&fatal, .{ .name = "egg_panic", .visibility = .hidden });
}

test {
    _ = @import("contexts/golden_test.zig");
    _ = @import("contexts/twins_test.zig");
    _ = @import("handles.zig");
    _ = @import("pool.zig");
    _ = @import("float/tests.zig");
    _ = @import("int8/eggroll.zig");
    _ = @import("int8/golden_test.zig");
    _ = @import("int8/nano_test.zig");
    _ = @import("int8/threefry.zig");
    _ = @import("int8/run_test.zig");
    _ = @import("int8/twins_nano_test.zig");
    _ = @import("int8/twins_test.zig");
}
