// The int8 recurrent model in memory: one slab of weights, a table of tensors and a table of the perturbed matrices.
// No arithmetic of the forward pass: that is forward.zig. Shapes as in src/models/egg.ts.
const std = @import("std");
const layout = @import("layout.zig");
const os = @import("../os.zig");

const Matrix = layout.Matrix;
const alignUp = layout.alignUp;

pub const Shape = struct { layers: u32, hidden: u32, vocabulary: u32 };

/// Tensors of one layer, in the order of the ABI (src/models/egg.ts lists the same).
pub const LayerTensor = enum(u32) { ln1, wf, uf, wh, uh, bf, bh, ln2, expand, project };
pub const tensors_per_layer = std.enums.values(LayerTensor).len;
/// Tensors outside the layers come first.
pub const OuterTensor = enum(u32) { embedding, head, ln_out };
pub const outer_tensors = std.enums.values(OuterTensor).len;

/// Perturbed matrices of one layer, in the order of their noise seeds (egg.c: 100 * layer + 1..6).
pub const LayerMatrix = enum(u32) { wf, uf, wh, uh, expand, project };
pub const matrices_per_layer = std.enums.values(LayerMatrix).len;

const Tensor = struct { offset: usize, bytes: usize };

pub const Model = struct {
    shape: Shape,
    weights: []align(64) i8,
    /// -bias * sum of each matrix row, kept up to date by whoever changes weights; the bias is the tier's.
    offsets: []align(64) i32,
    bias: i32,
    tensors: []Tensor,
    /// Layer by layer, the head last.
    matrices: []Matrix,
    /// Bytes of one group's noise for all matrices.
    noise_bytes: usize,

    /// Memory that `init` will take, in bytes.
    pub fn bytesNeeded(shape: Shape) usize {
        const h: usize = shape.hidden;
        return 2 * shape.vocabulary * h + shape.layers * (12 * h * h + 4 * h) + h + 4 * (9 * h * shape.layers + shape.vocabulary);
    }

    pub fn init(model: *Model, shape: Shape, bias: u32) error{OutOfMemory}!void {
        const gpa = std.heap.page_allocator;
        const h: usize = shape.hidden;
        const v: usize = shape.vocabulary;
        const tensors = try gpa.alloc(Tensor, outer_tensors + shape.layers * tensors_per_layer);
        errdefer gpa.free(tensors);
        const matrices = try gpa.alloc(Matrix, shape.layers * matrices_per_layer + 1);
        errdefer gpa.free(matrices);

        var slab: Slab = .{};
        tensors[@intFromEnum(OuterTensor.embedding)] = slab.take(v * h);
        tensors[@intFromEnum(OuterTensor.head)] = slab.take(v * h);
        tensors[@intFromEnum(OuterTensor.ln_out)] = slab.take(h);
        for (0..shape.layers) |l| {
            for (tensors[outer_tensors + l * tensors_per_layer ..][0..tensors_per_layer], std.enums.values(LayerTensor)) |*entry, kind| {
                entry.* = slab.take(switch (kind) {
                    .ln1, .bf, .bh, .ln2 => h,
                    .wf, .uf, .wh, .uh => h * h,
                    .expand, .project => 4 * h * h,
                });
            }
        }

        var rows: usize = 0;
        var noise: usize = 0;
        for (matrices, 0..) |*matrix, i| {
            const l = i / matrices_per_layer;
            const is_head = l == shape.layers;
            const kind: LayerMatrix = if (is_head) .wf else @enumFromInt(i % matrices_per_layer);
            matrix.* = .{
                .rows = if (is_head) shape.vocabulary else if (kind == .expand) 4 * shape.hidden else shape.hidden,
                .cols = if (!is_head and kind == .project) 4 * shape.hidden else shape.hidden,
                .shift = if (!is_head and kind == .project) 9 else 8,
                .seed_offset = if (is_head) 999 else @intCast(100 * l + i % matrices_per_layer + 1),
                .weights = if (is_head) tensors[@intFromEnum(OuterTensor.head)].offset else tensors[layerTensorIndex(l, tensorOf(kind))].offset,
                .offsets = rows,
                .noise_a = noise,
                .noise_b = undefined,
                .noise_b_sums = undefined,
            };
            matrix.noise_b = noise + @as(usize, matrix.rows) * layout.pair_lanes;
            matrix.noise_b_sums = matrix.noise_b + @as(usize, matrix.cols) * layout.pair_lanes;
            noise = matrix.noise_b_sums + layout.pair_lanes * @sizeOf(i32);
            rows += matrix.rows;
        }

        // Kernels that read a row 64 inputs at a time may read past the last one.
        const weights = try os.allocate(i8, slab.used + 64);
        errdefer os.free(weights);
        model.* = .{
            .shape = shape,
            .weights = weights,
            .offsets = try os.allocate(i32, rows),
            .bias = @intCast(bias),
            .tensors = tensors,
            .matrices = matrices,
            .noise_bytes = noise,
        };
    }

    pub fn deinit(model: *Model) void {
        os.free(model.weights);
        os.free(model.offsets);
        std.heap.page_allocator.free(model.tensors);
        std.heap.page_allocator.free(model.matrices);
    }

    pub fn tensor(model: *const Model, index: usize) ?[]i8 {
        if (index >= model.tensors.len) return null;
        const entry = model.tensors[index];
        return model.weights[entry.offset..][0..entry.bytes];
    }

    pub fn outer(model: *const Model, kind: OuterTensor) []i8 {
        return model.tensor(@intFromEnum(kind)).?;
    }

    pub fn layer(model: *const Model, l: usize, kind: LayerTensor) []i8 {
        return model.tensor(layerTensorIndex(l, kind)).?;
    }

    pub fn matrixOf(model: *const Model, l: usize, kind: LayerMatrix) *const Matrix {
        return &model.matrices[l * matrices_per_layer + @intFromEnum(kind)];
    }

    pub fn head(model: *const Model) *const Matrix {
        return &model.matrices[model.matrices.len - 1];
    }

    /// Recomputes the row offsets of a tensor that was written from outside.
    pub fn sumRows(model: *Model, index: usize) void {
        for (model.matrices) |matrix| {
            if (matrix.weights != model.tensors[index].offset) continue;
            for (0..matrix.rows) |r| {
                var sum: i32 = 0;
                for (model.weights[matrix.weights + r * matrix.cols ..][0..matrix.cols]) |w| sum += w;
                model.offsets[matrix.offsets + r] = -model.bias * sum;
            }
        }
    }
};

const Slab = struct {
    used: usize = 0,

    fn take(slab: *Slab, bytes: usize) Tensor {
        defer slab.used += alignUp(bytes, 64);
        return .{ .offset = slab.used, .bytes = bytes };
    }
};

fn layerTensorIndex(l: usize, kind: LayerTensor) usize {
    return outer_tensors + l * tensors_per_layer + @intFromEnum(kind);
}

fn tensorOf(kind: LayerMatrix) LayerTensor {
    return switch (kind) {
        .wf => .wf,
        .uf => .uf,
        .wh => .wh,
        .uh => .uh,
        .expand => .expand,
        .project => .project,
    };
}
