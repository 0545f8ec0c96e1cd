// The forward pass of one member (or one clean stream) by itself: a chunk of time goes through a layer at once, so that all
// matrices but the two recurrent ones see many tokens. For what is too little for a panel (forward.zig): small populations,
// the prompt and the new tokens of generation. Same arithmetic, same bits.
const std = @import("std");
const layout = @import("layout.zig");
const ops = @import("ops.zig");
const os = @import("../os.zig");
const Model = @import("model.zig").Model;

/// Tokens of one chunk: enough to pay for reading the weights, few enough that activations stay in the L2 cache.
pub const chunk = 32;

/// One member's noise, taken out of its group's block: A and B of each matrix in a row.
pub const Noise = struct {
    memory: []align(64) i8,
    places: []Place,
    sign: i32,
    perturb_shift: u32,

    const Place = struct { a: usize, b: usize, b_sum: i32 };

    pub fn bytesNeeded(model: *const Model) usize {
        var bytes: usize = 0;
        for (model.matrices) |matrix| bytes += ops.rowBytes(matrix.rows) + ops.rowBytes(matrix.cols);
        return bytes;
    }

    pub fn init(noise: *Noise, model: *const Model) error{OutOfMemory}!void {
        const places = try std.heap.page_allocator.alloc(Place, model.matrices.len);
        errdefer std.heap.page_allocator.free(places);
        noise.* = .{ .memory = try os.allocate(i8, bytesNeeded(model)), .places = places, .sign = 1, .perturb_shift = 0 };
        var at: usize = 0;
        for (model.matrices, places) |matrix, *place| {
            place.* = .{ .a = at, .b = at + ops.rowBytes(matrix.rows), .b_sum = 0 };
            at = place.b + ops.rowBytes(matrix.cols);
        }
    }

    pub fn deinit(noise: *Noise) void {
        os.free(noise.memory);
        std.heap.page_allocator.free(noise.places);
    }

    /// Copies pair `lane` out of a group's block.
    pub fn take(noise: *Noise, model: *const Model, block: [*]const u8, lane: usize) void {
        for (model.matrices, noise.places) |matrix, *place| {
            const a: [*]const i8 = @ptrCast(block + matrix.noise_a);
            for (noise.memory[place.a..][0..matrix.rows], 0..) |*value, r| value.* = a[r * layout.pair_lanes + lane];
            const b: [*]const [4]i8 = @ptrCast(block + matrix.noise_b);
            for (0..matrix.cols / 4) |q| noise.memory[place.b + 4 * q ..][0..4].* = b[q * layout.pair_lanes + lane];
            const sums: [*]const i32 = @ptrCast(@alignCast(block + matrix.noise_b_sums));
            place.b_sum = sums[lane];
        }
    }
};

pub const Stream = struct {
    memory: []align(64) u8,
    x: [*]u8, // [chunk][H]
    norm: [*]u8, // [chunk][H]
    a: [*]u8, // [chunk][H]
    b: [*]u8, // [chunk][H]
    recurrent: [*]u8, // [H]
    f: [*]u8, // [H]
    g: [*]u8, // [H]
    expanded: [*]u8, // [chunk][4H]
    logits: [*]u8, // [chunk][V]
    h: [*]u8, // [L][H]
    dots: [chunk]i32,

    pub fn bytesNeeded(model: *const Model) usize {
        const h = ops.rowBytes(model.shape.hidden);
        return chunk * (4 * h + ops.rowBytes(4 * model.shape.hidden) + ops.rowBytes(model.shape.vocabulary)) + (3 + model.shape.layers) * h;
    }

    pub fn init(stream: *Stream, model: *const Model) error{OutOfMemory}!void {
        const h = ops.rowBytes(model.shape.hidden);
        stream.memory = try os.allocate(u8, bytesNeeded(model)); // zeroed: bytes past the width must be raw zeros
        var rest: [*]u8 = stream.memory.ptr;
        inline for (.{ "x", "norm", "a", "b" }) |name| @field(stream, name) = take(&rest, chunk * h);
        inline for (.{ "recurrent", "f", "g" }) |name| @field(stream, name) = take(&rest, h);
        stream.expanded = take(&rest, chunk * ops.rowBytes(4 * model.shape.hidden));
        stream.logits = take(&rest, chunk * ops.rowBytes(model.shape.vocabulary));
        stream.h = take(&rest, model.shape.layers * h);
    }

    pub fn deinit(stream: *Stream) void {
        os.free(stream.memory);
    }

    fn take(rest: *[*]u8, bytes: usize) [*]u8 {
        defer rest.* += bytes;
        return rest.*;
    }

    /// Sets the recurrent state from (L, H) values.
    pub fn loadState(stream: *Stream, kernels: *const ops.Table, model: *const Model, state: []const i8) void {
        const width = model.shape.hidden;
        const bias: u8 = @intCast(kernels.bias);
        for (0..model.shape.layers) |l| {
            for (stream.h[l * ops.rowBytes(width) ..][0..width], state[l * width ..][0..width]) |*to, from| to.* = @as(u8, @bitCast(from)) ^ bias;
        }
    }

    /// Copies the recurrent state to (L, H) values.
    pub fn storeState(stream: *const Stream, kernels: *const ops.Table, model: *const Model, state: []i8) void {
        const width = model.shape.hidden;
        const bias: u8 = @intCast(kernels.bias);
        for (0..model.shape.layers) |l| {
            for (state[l * width ..][0..width], stream.h[l * ops.rowBytes(width) ..][0..width]) |*to, from| to.* = @bitCast(from ^ bias);
        }
    }

    /// Reads `count` <= chunk tokens, moves the state on and leaves their logits [count][rowBytes(V)].
    /// False if `cancelled` was set meanwhile: state and logits are then worthless.
    pub fn read(
        stream: *Stream,
        kernels: *const ops.Table,
        model: *const Model,
        noise: ?*const Noise,
        tokens: []const u8,
        cancelled: *const std.atomic.Value(bool),
    ) bool {
        const width = model.shape.hidden;
        const row = ops.rowBytes(width);
        const count: u32 = @intCast(tokens.len);
        const bias: u8 = @intCast(kernels.bias);
        const embedding = model.outer(.embedding);
        for (tokens, 0..) |token, t| {
            for (stream.x[t * row ..][0..width], embedding[token * width ..][0..width]) |*to, from| to.* = @as(u8, @bitCast(from)) ^ bias;
        }
        const work: Work = .{ .stream = stream, .kernels = kernels, .model = model, .noise = noise };
        for (0..model.shape.layers) |l| {
            const first = l * @import("model.zig").matrices_per_layer;
            const h = stream.h + l * row;
            work.layerNorm(model.layer(l, .ln1), count);
            work.matmul(first + 0, stream.norm, stream.a, count);
            work.matmul(first + 2, stream.norm, stream.b, count);
            for (0..count) |t| {
                if (cancelled.load(.monotonic)) return false;
                work.matmul(first + 1, h, stream.recurrent, 1);
                kernels.row_forget_gate(&.{
                    .a = stream.a + t * row,
                    .b = stream.recurrent,
                    .bias = model.layer(l, .bf).ptr,
                    .h = h,
                    .f = stream.f,
                    .g = stream.g,
                    .width = width,
                    .groups = 0,
                });
                work.matmul(first + 3, stream.g, stream.recurrent, 1);
                kernels.row_state_update(&.{
                    .a = stream.b + t * row,
                    .b = stream.recurrent,
                    .bias = model.layer(l, .bh).ptr,
                    .f = stream.f,
                    .residual = stream.x + t * row,
                    .h = h,
                    .out = stream.x + t * row,
                    .width = width,
                    .groups = 0,
                });
            }
            work.layerNorm(model.layer(l, .ln2), count);
            work.matmul(first + 4, stream.norm, stream.expanded, count);
            if (cancelled.load(.monotonic)) return false;
            work.matmul(first + 5, stream.expanded, stream.a, count);
            kernels.add(stream.a, stream.x, stream.x, count * row);
        }
        work.layerNorm(model.outer(.ln_out), count);
        work.matmul(model.matrices.len - 1, stream.norm, stream.logits, count);
        return !cancelled.load(.monotonic);
    }

    /// The integer loss of token t of the last `read` (ops.RowsLoss).
    pub fn loss(stream: *const Stream, kernels: *const ops.Table, model: *const Model, t: usize, target: u8) i32 {
        var op: ops.RowsLoss = .{
            .logits = stream.logits + t * ops.rowBytes(model.shape.vocabulary),
            .vocabulary = model.shape.vocabulary,
            .target = target,
            .loss = 0,
        };
        kernels.rows_loss(&op);
        return op.loss;
    }
};

const Work = struct {
    stream: *Stream,
    kernels: *const ops.Table,
    model: *const Model,
    noise: ?*const Noise,

    fn layerNorm(work: Work, weight: []const i8, tokens: u32) void {
        work.kernels.rows_layer_norm(&.{ .x = work.stream.x, .weight = weight.ptr, .out = work.stream.norm, .tokens = tokens, .width = @intCast(weight.len) });
    }

    fn matmul(work: Work, index: usize, x: [*]const u8, out: [*]u8, tokens: u32) void {
        const matrix = work.model.matrices[index];
        const dots = &work.stream.dots;
        if (work.noise) |noise| work.kernels.rows_noise_dot(&.{
            .x = x,
            .b = noise.memory.ptr + noise.places[index].b,
            .dots = dots,
            .tokens = tokens,
            .cols = matrix.cols,
            .sign = noise.sign,
            .b_sum = noise.places[index].b_sum,
        });
        work.kernels.rows_matmul(&.{
            .x = x,
            .weights = work.model.weights.ptr + matrix.weights,
            .offsets = work.model.offsets.ptr + matrix.offsets,
            .out = out,
            .tokens = tokens,
            .rows = matrix.rows,
            .cols = matrix.cols,
            .shift = matrix.shift,
            .perturb_shift = if (work.noise) |noise| noise.perturb_shift else 0,
            .perturbed = @intFromBool(work.noise != null),
            .a = if (work.noise) |noise| noise.memory.ptr + noise.places[index].a else work.model.weights.ptr,
            .dots = dots,
        });
    }
};
