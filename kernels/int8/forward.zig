// The forward pass of a panel: some groups of members (or clean streams), one token at a time, through a tier's kernels.
// It owns the panel's buffers and knows the order of egg.c's operations; it does not know populations (eggroll.zig)
// or texts (evaluate.zig).
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
    scratch: [*]align(64) u8,
    dots: [max_lanes]i32 align(64),

    pub fn bytesNeeded(model: *const Model, groups: u32) usize {
        const h: usize = model.shape.hidden;
        return layout.activationBytes(6 * h + 4 * h + model.shape.vocabulary + model.shape.layers * h, groups) +
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
        kernels.embed(&.{ .embedding = model.outer(.embedding).ptr, .tokens = tokens, .out = panel.x, .width = hidden, .groups = panel.groups });
        for (0..model.shape.layers) |l| {
            const h = panel.h + l * panel.h_bytes;
            if (cancelled.load(.monotonic)) return false;
            panel.layerNorm(kernels, model.layer(l, .ln1));
            panel.matmul(kernels, model, noise, model.matrixOf(l, .wf), panel.norm, panel.a);
            panel.matmul(kernels, model, noise, model.matrixOf(l, .uf), h, panel.b);
            kernels.forget_gate(&.{
                .a = panel.a,
                .b = panel.b,
                .bias = model.layer(l, .bf).ptr,
                .h = h,
                .f = panel.f,
                .g = panel.g,
                .width = hidden,
                .groups = panel.groups,
            });
            panel.matmul(kernels, model, noise, model.matrixOf(l, .wh), panel.norm, panel.a);
            panel.matmul(kernels, model, noise, model.matrixOf(l, .uh), panel.g, panel.b);
            kernels.state_update(&.{
                .a = panel.a,
                .b = panel.b,
                .bias = model.layer(l, .bh).ptr,
                .f = panel.f,
                .residual = panel.x,
                .h = h,
                .out = panel.x,
                .width = hidden,
                .groups = panel.groups,
            });
            if (cancelled.load(.monotonic)) return false;
            panel.layerNorm(kernels, model.layer(l, .ln2));
            panel.matmul(kernels, model, noise, model.matrixOf(l, .expand), panel.norm, panel.expanded);
            panel.matmul(kernels, model, noise, model.matrixOf(l, .project), panel.expanded, panel.a);
            kernels.add(panel.a, panel.x, panel.x, panel.h_bytes);
        }
        panel.layerNorm(kernels, model.outer(.ln_out));
        panel.matmul(kernels, model, noise, model.head(), panel.norm, panel.logits);
        return !cancelled.load(.monotonic);
    }

    fn layerNorm(panel: *Panel, kernels: *const ops.Table, weight: []const i8) void {
        kernels.layer_norm(&.{ .x = panel.x, .weight = weight.ptr, .out = panel.norm, .width = @intCast(weight.len), .groups = panel.groups });
    }

    /// One matrix, perturbed where there is noise; the noise of the matrix that comes next in the slab is asked for.
    fn matmul(panel: *Panel, kernels: *const ops.Table, model: *const Model, noise: ?Noise, matrix: *const layout.Matrix, x: [*]const u8, out: [*]u8) void {
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
        const next = matrices[((@intFromPtr(matrix) - @intFromPtr(matrices.ptr)) / @sizeOf(layout.Matrix) + 1) % matrices.len];
        kernels.matmul(&.{
            .x = x,
            .weights = model.weights.ptr + matrix.weights,
            .offsets = model.offsets.ptr + matrix.offsets,
            .out = out,
            .rows = matrix.rows,
            .cols = matrix.cols,
            .groups = panel.groups,
            .shift = matrix.shift,
            .perturb_shift = if (noise) |n| n.perturb_shift else 0,
            .perturbed = @intFromBool(noise != null),
            .a = if (noise) |n| @ptrCast(n.block + matrix.noise_a) else model.weights.ptr,
            .a_stride = if (noise) |n| n.stride else 0,
            .dots = &panel.dots,
            .scratch = panel.scratch,
            .ahead = if (noise) |n| n.block + next.noise_b else panel.x,
            .ahead_bytes = if (noise != null) next.cols * layout.pair_lanes else 0,
        });
    }
};
