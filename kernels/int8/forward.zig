// The forward pass of a panel: some groups of members (or clean streams), one token at a time, through a tier's kernels.
// It owns the panel's buffers and knows the order of the operations, which is the same in all rules; it does not know
// populations (eggroll.zig) or texts (evaluate.zig).
const std = @import("std");
const layout = @import("layout.zig");
const ops = @import("ops.zig");
const os = @import("../os.zig");
const Model = @import("model.zig").Model;

pub const max_lanes = layout.max_groups * layout.group_lanes;

/// Where a panel's noise lies: the first group's block, and the distance to the next group's.
pub const Noise = struct { block: [*]const u8, stride: usize, perturb_shift: u32 };

pub const Panel = struct {
    groups: u32,
    layers: u32,
    memory: []align(64) u8,
    x: [*]u8, // (H): the residual stream
    norm: [*]u8, // (H)
    a: [*]u8, // (H)
    b: [*]u8, // (H)
    f: [*]u8, // (H)
    g: [*]u8, // (H)
    expanded: [*]u8, // (4H)
    logits: [*]u8, // (V)
    h: [*]u8, // (L, H): recurrent state
    h_bytes: usize, // of one layer
    vectors: [*]u8, // as each member has them, where the rule perturbs them: in the order of model.perturbed, (H) each
    scratch: [*]align(64) u8,
    dots: [max_lanes]i32 align(64),

    pub fn bytesNeeded(model: *const Model, groups: u32) usize {
        const h: usize = model.shape.hidden;
        return layout.activationBytes(6 * h + 4 * h + model.shape.vocabulary + model.shape.layers * h + model.vectors().len * h, groups) +
            ops.matmulScratchBytes(4 * h, groups);
    }

    pub fn init(panel: *Panel, model: *const Model, groups: u32) error{OutOfMemory}!void {
        const memory = try os.allocate(u8, bytesNeeded(model, groups));
        const h = layout.activationBytes(model.shape.hidden, groups);
        var rest: [*]u8 = memory.ptr;
        panel.* = .{
            .groups = groups,
            .layers = model.shape.layers,
            .memory = memory,
            .x = take(&rest, h),
            .norm = take(&rest, h),
            .a = take(&rest, h),
            .b = take(&rest, h),
            .f = take(&rest, h),
            .g = take(&rest, h),
            .expanded = take(&rest, 4 * h),
            .logits = take(&rest, layout.activationBytes(model.shape.vocabulary, groups)),
            .h = take(&rest, model.shape.layers * h),
            .h_bytes = h,
            .vectors = take(&rest, model.vectors().len * h),
            .scratch = @alignCast(rest),
            .dots = undefined,
        };
    }

    pub fn deinit(panel: *Panel) void {
        os.free(panel.memory);
    }

    fn take(rest: *[*]u8, bytes: usize) [*]u8 {
        defer rest.* += bytes;
        return rest.*;
    }

    /// Sets one lane's recurrent state from (L, H) bytes, or to zero.
    pub fn loadState(panel: *Panel, kernels: *const ops.Table, lane: usize, state: ?[]const i8) void {
        const lanes = panel.groups * layout.group_lanes;
        const bias: u32 = kernels.bias * 0x01010101;
        const words: [*]u32 = @ptrCast(@alignCast(panel.h));
        if (state) |values| {
            const source: [*]align(1) const u32 = @ptrCast(values.ptr);
            for (0..values.len / 4) |w| words[w * lanes + lane] = source[w] ^ bias;
        } else {
            var w = lane;
            while (w < panel.layers * panel.h_bytes / 4) : (w += lanes) words[w] = bias;
        }
    }

    /// Copies one lane's recurrent state to (L, H) bytes.
    pub fn storeState(panel: *const Panel, kernels: *const ops.Table, lane: usize, state: []i8) void {
        const lanes = panel.groups * layout.group_lanes;
        const bias: u32 = kernels.bias * 0x01010101;
        const words: [*]const u32 = @ptrCast(@alignCast(panel.h));
        const target: [*]align(1) u32 = @ptrCast(state.ptr);
        for (0..state.len / 4) |w| target[w] = words[w * lanes + lane] ^ bias;
    }

    /// Sets the state of all lanes that read a byte 0 now to zero.
    fn resetAtZero(panel: *Panel, kernels: *const ops.Table, tokens: [*]const u8) void {
        for (tokens[0 .. panel.groups * layout.group_lanes], 0..) |token_of, lane| if (token_of == 0) panel.loadState(kernels, lane, null);
    }

    /// Makes the members' own vectors, where the rule has such; to be called before the first token with this noise.
    pub fn perturbVectors(panel: *Panel, kernels: *const ops.Table, model: *const Model, noise: ?Noise) void {
        for (model.vectors(), 0..) |vector, i| kernels.perturb_vector(&.{
            .vector = model.weights.ptr + vector.weights,
            .noise = if (noise) |n| @ptrCast(@alignCast(n.block + vector.noise_a)) else &.{},
            .noise_stride = if (noise) |n| n.stride else 0,
            .perturbed = @intFromBool(noise != null),
            .perturb_shift = if (noise) |n| n.perturb_shift else 0,
            .out = @ptrCast(panel.vectors + i * panel.h_bytes),
            .width = vector.rows,
            .groups = panel.groups,
        });
    }

    /// A vector as the operators of this rule take it.
    fn vectorOf(panel: *const Panel, model: *const Model, place: layout.Place) ops.Vector {
        const i = model.vectorIndex(place) orelse return model.tensor(Model.indexOf(place)).?.ptr;
        return @ptrCast(panel.vectors + i * panel.h_bytes);
    }

    /// One token for every lane: reads `tokens` [lanes], moves the states on, leaves the logits.
    /// False if `cancelled` was set meanwhile: states and logits are then worthless.
    pub fn token(
        panel: *Panel,
        kernels: *const ops.Table,
        model: *const Model,
        noise: ?Noise,
        tokens: [*]const u8,
        cancelled: *const std.atomic.Value(bool),
    ) bool {
        const hidden = model.shape.hidden;
        const operators = kernels.operators(model.shape.rule);
        if (model.shape.rule.resetsAtZero()) panel.resetAtZero(kernels, tokens);
        panel.embed(kernels, model, noise, tokens);
        for (0..model.shape.layers) |l| {
            const h = panel.h + l * panel.h_bytes;
            const index: u32 = @intCast(l);
            if (cancelled.load(.monotonic)) return false;
            panel.layerNorm(operators, model, .{ .layer = .{ .index = index, .tensor = .ln1 } });
            panel.matmul(kernels, model, noise, model.matrixOf(l, .wf), panel.norm, panel.a);
            panel.matmul(kernels, model, noise, model.matrixOf(l, .uf), h, panel.b);
            operators.forget_gate(&.{
                .a = panel.a,
                .b = panel.b,
                .bias = panel.vectorOf(model, .{ .layer = .{ .index = index, .tensor = .bf } }),
                .h = h,
                .f = panel.f,
                .g = panel.g,
                .width = hidden,
                .groups = panel.groups,
            });
            panel.matmul(kernels, model, noise, model.matrixOf(l, .wh), panel.norm, panel.a);
            panel.matmul(kernels, model, noise, model.matrixOf(l, .uh), panel.g, panel.b);
            operators.state_update(&.{
                .a = panel.a,
                .b = panel.b,
                .bias = panel.vectorOf(model, .{ .layer = .{ .index = index, .tensor = .bh } }),
                .f = panel.f,
                .residual = panel.x,
                .h = h,
                .out = panel.x,
                .width = hidden,
                .groups = panel.groups,
            });
            if (cancelled.load(.monotonic)) return false;
            panel.layerNorm(operators, model, .{ .layer = .{ .index = index, .tensor = .ln2 } });
            panel.matmul(kernels, model, noise, model.matrixOf(l, .expand), panel.norm, panel.expanded);
            panel.matmul(kernels, model, noise, model.matrixOf(l, .project), panel.expanded, panel.a);
            kernels.add(panel.a, panel.x, panel.x, panel.h_bytes);
        }
        panel.layerNorm(operators, model, .{ .outer = .ln_out });
        panel.matmul(kernels, model, noise, model.head(), panel.norm, panel.logits);
        return !cancelled.load(.monotonic);
    }

    fn embed(panel: *Panel, kernels: *const ops.Table, model: *const Model, noise: ?Noise, tokens: [*]const u8) void {
        const width = model.shape.hidden;
        kernels.embed(&.{ .embedding = model.outer(.embedding).ptr, .tokens = tokens, .out = panel.x, .width = width, .groups = panel.groups });
        const embedding = model.perturbedEmbedding() orelse return;
        if (noise) |n| kernels.perturb_embedded(&.{
            .tokens = tokens,
            .a = @ptrCast(n.block + embedding.noise_a),
            .b = @ptrCast(n.block + embedding.noise_b),
            .stride = n.stride,
            .perturb_shift = n.perturb_shift,
            .x = panel.x,
            .width = width,
            .groups = panel.groups,
        });
    }

    fn layerNorm(panel: *Panel, operators: *const ops.Operators, model: *const Model, place: layout.Place) void {
        operators.layer_norm(&.{ .x = panel.x, .weight = panel.vectorOf(model, place), .out = panel.norm, .width = model.shape.hidden, .groups = panel.groups });
    }

    /// One matrix, perturbed where there is noise; the noise of the next one is asked for, and the vector that comes between.
    fn matmul(panel: *Panel, kernels: *const ops.Table, model: *const Model, noise: ?Noise, matrix: *const layout.Parameter, x: [*]const u8, out: [*]u8) void {
        if (noise) |n| kernels.noise_dot(&.{
            .x = x,
            .b = @ptrCast(n.block + matrix.noise_b),
            .b_sums = @ptrCast(@alignCast(n.block + matrix.noise_b_sums)),
            .b_stride = n.stride,
            .dots = &panel.dots,
            .cols = matrix.cols,
            .groups = panel.groups,
        });
        const matrices = model.matrices;
        const index = (@intFromPtr(matrix) - @intFromPtr(matrices.ptr)) / @sizeOf(layout.Parameter);
        const next = matrices[(index + 1) % matrices.len];
        const vector = model.vectorAfter(index);
        kernels.matmul(&.{
            .x = x,
            .weights = model.weights.ptr + matrix.weights,
            .offsets = model.offsets.ptr + matrix.offsets,
            .out = out,
            .rows = matrix.rows,
            .cols = matrix.cols,
            .groups = panel.groups,
            .shift = matrix.shift,
            .root = matrix.root,
            .noise_max = model.shape.rule.noiseMax(),
            .perturb_shift = if (noise) |n| n.perturb_shift else 0,
            .perturbed = @intFromBool(noise != null),
            .a = if (noise) |n| @ptrCast(n.block + matrix.noise_a) else model.weights.ptr,
            .a_stride = if (noise) |n| n.stride else 0,
            .dots = &panel.dots,
            .scratch = panel.scratch,
            .ahead = if (noise) |n| n.block + next.noise_b else panel.x,
            .ahead_bytes = if (noise != null) next.cols * layout.pair_lanes else 0,
            .soon = if (vector) |i| panel.vectors + i * panel.h_bytes else panel.x,
            .soon_bytes = if (vector != null) @intCast(panel.h_bytes) else 0,
        });
    }
};
