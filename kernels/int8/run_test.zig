// Whole training runs against tests/golden/: initial weights, then weights, states, losses and fitness after each step, on every
// SIMD tier of the machine (or of its emulator) with several thread counts and panel widths.
// The scalar tier and the way through the library: tests/golden.test.ts, tests/nano.test.ts.
const std = @import("std");
const builtin = @import("builtin");
const cpu = @import("../cpu.zig");
const egg_c = @import("egg_c.zig");
const nano_egg = @import("nano_egg.zig");
const Model = @import("model.zig").Model;
const Pool = @import("../pool.zig").Pool;
const Trainer = @import("eggroll.zig").Trainer;

const gpa = std.testing.allocator;
const Sha256 = std.crypto.hash.sha2.Sha256;

const Golden = struct { cases: []Case };
const Case = struct {
    name: []const u8,
    config: struct { hidden: u32, layers: u32, sequence: u32, population: u32, threshold: u32, time_seed: u32 },
    corpus: struct { text: []const u8, bytes: usize },
    init: struct { sha256: []const u8 },
    steps: []struct {
        step: u32,
        step_seed: []const u8,
        fitness: []const u8,
        weights_changed: u64,
        weights_sha256: []const u8,
        states_sha256: []const u8,
        loss_plus: ?[]i32 = null,
        loss_minus: ?[]i32 = null,
    },
};

/// An emulator takes a minute for what a machine does in a second: fewer repetitions where there may be one.
const thread_counts: []const u32 = if (builtin.cpu.arch == .x86_64) &.{ 1, 2, 3, 5 } else &.{ 1, 3 };

test "golden runs of egg.c" {
    const golden = try std.json.parseFromSlice(Golden, gpa, @embedFile("egg-c.json"), .{ .ignore_unknown_fields = true });
    defer golden.deinit();
    try everyTier(golden.value.cases, replay);
}

test "golden runs of nano-egg" {
    const golden = try std.json.parseFromSlice(NanoGolden, gpa, @embedFile("nano-egg.json"), .{ .ignore_unknown_fields = true });
    defer golden.deinit();
    try everyTier(golden.value.training, replayNano);
}

fn everyTier(cases: anytype, comptime run: fn (@TypeOf(cases[0]), cpu.Tier, *Pool, u32) anyerror!void) !void {
    for (std.enums.values(cpu.Tier)) |tier| {
        if (tier == .scalar or !cpu.available(tier)) continue;
        for (thread_counts) |threads| {
            const pool = try gpa.create(Pool);
            defer gpa.destroy(pool);
            try pool.init(threads);
            defer pool.deinit();
            for (cases) |case| {
                const panel_groups: u32 = threads % 4;
                run(case, tier, pool, panel_groups) catch |err| {
                    std.debug.print("{s}: tier {t}, {d} threads, panel_groups {d}\n", .{ case.name, tier, threads, panel_groups });
                    return err;
                };
            }
        }
    }
}

fn replay(case: Case, tier: cpu.Tier, pool: *Pool, panel_groups: u32) anyerror!void {
    const kernels = tier.kernels().?;
    const config = case.config;
    const pairs = config.population / 2;
    var model: Model = undefined;
    try model.init(.{ .rule = .egg_c, .layers = config.layers, .hidden = config.hidden, .vocabulary = 256 }, kernels.bias);
    defer model.deinit();
    egg_c.initialize(&model);
    for (0..model.tensors.len) |i| model.sumRows(i);
    try expectHash(case.init.sha256, &model, null);
    const trainer = try gpa.create(Trainer);
    defer gpa.destroy(trainer);
    try trainer.init(&model, kernels, pool, .{
        .pairs = pairs,
        .sequence = config.sequence,
        .perturb_shift = 8,
        .panel_groups = panel_groups,
        .mode = if (panel_groups == 3) .rows else .auto,
    });
    defer trainer.deinit();
    for (case.steps) |step| {
        const stride = case.corpus.bytes / pairs;
        const row = config.sequence + 1;
        for (0..pairs) |p| {
            const start = (@as(usize, step.step) * config.sequence + p * stride) % (case.corpus.bytes - config.sequence);
            for (trainer.batch[p * row ..][0..row], start..) |*byte, at| byte.* = case.corpus.text[at % case.corpus.text.len];
        }
        trainer.start(.{ .seed = try std.fmt.parseInt(u32, step.step_seed, 16), .threshold = config.threshold });
        while (!pool.wait(1000)) {}
        try std.testing.expect(trainer.finish());
        try expectFitness(step.fitness, trainer.fitness[0..pairs]);
        if (step.loss_plus) |losses| for (losses, 0..) |loss, p| try std.testing.expectEqual(loss, trainer.losses[2 * p]);
        if (step.loss_minus) |losses| for (losses, 0..) |loss, p| try std.testing.expectEqual(loss, trainer.losses[2 * p + 1]);
        try std.testing.expectEqual(step.weights_changed, trainer.changed.load(.monotonic));
        try expectHash(step.weights_sha256, &model, null);
        try expectHash(step.states_sha256, &model, std.mem.sliceAsBytes(trainer.states));
    }
}

const NanoGolden = struct { training: []NanoCase };
const NanoCase = struct {
    name: []const u8,
    config: struct { seed: u32, width: u32, layers: u32, population: u32, group_size: u32, sequence: u32, sigma_shift: u32 },
    corpus: struct { text: []const u8, bytes: usize },
    layout: struct { sequences: u32, row_bytes: u32 },
    init: struct { all_leaves_sha256: []const u8 },
    epochs: []struct { epoch: u32, threshold: u32, segment: u32, fitness: []const u8, changed: u64, states_sha256: []const u8, params_sha256: []const u8, scores: []i32 = &.{} },
};

fn replayNano(case: NanoCase, tier: cpu.Tier, pool: *Pool, panel_groups: u32) anyerror!void {
    const kernels = tier.kernels().?;
    const config = case.config;
    const pairs = config.population / 2;
    var model: Model = undefined;
    try model.init(.{ .rule = .nano_egg, .layers = config.layers, .hidden = config.width, .vocabulary = 256 }, kernels.bias);
    defer model.deinit();
    nano_egg.initialize(&model, config.seed);
    for (0..model.tensors.len) |i| model.sumRows(i);
    try expectLeaves(case.init.all_leaves_sha256, &model);
    const trainer = try gpa.create(Trainer);
    defer gpa.destroy(trainer);
    try trainer.init(&model, kernels, pool, .{
        .pairs = pairs,
        .sequence = config.sequence,
        .pairs_per_stream = config.group_size / 2,
        .perturb_shift = 4 + config.sigma_shift,
        .seed = config.seed,
        .panel_groups = panel_groups,
        .mode = .auto,
    });
    defer trainer.deinit();
    const row = config.sequence + 1;
    for (case.epochs) |epoch| {
        for (0..case.layout.sequences) |s| {
            const start = s * case.layout.row_bytes + epoch.segment * config.sequence;
            for (trainer.batch[s * row ..][0..row], start..) |*byte, at| byte.* = case.corpus.text[at % case.corpus.text.len];
        }
        trainer.start(.{ .seed = epoch.epoch, .threshold = epoch.threshold });
        while (!pool.wait(1000)) {}
        try std.testing.expect(trainer.finish());
        try expectFitness(epoch.fitness, trainer.fitness[0..pairs]);
        for (epoch.scores, 0..) |score, member| try std.testing.expectEqual(-score, trainer.losses[member]);
        try std.testing.expectEqual(epoch.changed, trainer.changed.load(.monotonic));
        try expectLeaves(epoch.params_sha256, &model);
        try expectHash(epoch.states_sha256, &model, std.mem.sliceAsBytes(trainer.states));
    }
}

fn expectFitness(expected: []const u8, found: []const i8) !void {
    for (expected, found) |sign, fitness| try std.testing.expectEqual(@as(i8, switch (sign) {
        '+' => 1,
        '-' => -1,
        else => 0,
    }), fitness);
}

/// The hash of the model in nano-egg's order: each leaf of all layers, then those outside.
fn expectLeaves(expected: []const u8, model: *const Model) !void {
    var hash: Sha256 = .init(.{});
    inline for (.{ .uf, .uh, .wf, .wh, .bf, .bh, .ln1, .ln2, .expand, .project }) |kind| {
        for (0..model.shape.layers) |l| hash.update(std.mem.sliceAsBytes(model.layer(l, kind)));
    }
    inline for (.{ .embedding, .head, .ln_out }) |kind| hash.update(std.mem.sliceAsBytes(model.outer(kind)));
    try std.testing.expectEqualStrings(expected, &std.fmt.bytesToHex(hash.finalResult(), .lower));
}

/// The hash of `bytes`, or of the model in the order of the reference's struct.
fn expectHash(expected: []const u8, model: *const Model, bytes: ?[]const u8) !void {
    var hash: Sha256 = .init(.{});
    if (bytes) |b| hash.update(b) else {
        const layers = model.shape.layers;
        const put = struct {
            fn put(h: *Sha256, tensor: []const i8) void {
                h.update(std.mem.sliceAsBytes(tensor));
            }
        }.put;
        put(&hash, model.outer(.embedding));
        for (0..layers) |l| inline for (.{ .wf, .uf, .wh, .uh }) |kind| put(&hash, model.layer(l, kind));
        for (0..layers) |l| inline for (.{ .bf, .bh }) |kind| put(&hash, model.layer(l, kind));
        for (0..layers) |l| inline for (.{ .expand, .project }) |kind| put(&hash, model.layer(l, kind));
        put(&hash, model.outer(.head));
        for (0..layers) |l| inline for (.{ .ln1, .ln2 }) |kind| put(&hash, model.layer(l, kind));
        put(&hash, model.outer(.ln_out));
    }
    const digest = hash.finalResult();
    try std.testing.expectEqualStrings(expected, &std.fmt.bytesToHex(digest, .lower));
}
