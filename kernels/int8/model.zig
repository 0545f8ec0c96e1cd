// The int8 recurrent model in memory: one slab of weights, a table of tensors and a table of the perturbed parameters.
// No arithmetic of the forward pass (forward.zig), and nothing that one rule does otherwise (rule.zig).
// Shapes as in src/models/egg.ts.
const std = @import("std");
const layout = @import("layout.zig");
const os = @import("../os.zig");
const Rule = @import("rule.zig").Rule;

const Parameter = layout.Parameter;
const alignUp = layout.alignUp;

pub const Shape = struct { rule: Rule, layers: u32, hidden: u32, vocabulary: u32 };

pub const LayerTensor = layout.LayerTensor;
pub const OuterTensor = layout.OuterTensor;
const LayerMatrix = layout.LayerMatrix;
const LayerVector = layout.LayerVector;
const Place = layout.Place;
const tensors_per_layer = std.enums.values(LayerTensor).len;
const outer_tensors = std.enums.values(OuterTensor).len;
pub const matrices_per_layer = std.enums.values(LayerMatrix).len;
const vectors_per_layer = std.enums.values(LayerVector).len;

const Tensor = struct { offset: usize, bytes: usize };

pub const Model = struct {
    shape: Shape,
    weights: []align(64) i8,
    /// -bias * sum of each matrix row, kept up to date by whoever changes weights; the bias is the tier's.
    offsets: []align(64) i32,
    bias: i32,
    tensors: []Tensor,
    /// All that the rule perturbs and trains: matrices layer by layer, the head, then embedding and vectors where it does.
    perturbed: []Parameter,
    /// The matrices among them: layer by layer, the head last.
    matrices: []Parameter,
    /// Bytes of one group's noise for all of them.
    noise_bytes: usize,

    /// Memory that `init` will take, in bytes.
    pub fn bytesNeeded(shape: Shape) usize {
        const h: usize = shape.hidden;
        return 2 * shape.vocabulary * h + shape.layers * (12 * h * h + 4 * h) + h + 4 * (9 * h * shape.layers + 2 * shape.vocabulary);
    }

    pub fn init(model: *Model, shape: Shape, bias: u32) error{OutOfMemory}!void {
        const gpa = std.heap.page_allocator;
        const h: usize = shape.hidden;
        const v: usize = shape.vocabulary;
        const tensors = try gpa.alloc(Tensor, outer_tensors + shape.layers * tensors_per_layer);
        errdefer gpa.free(tensors);
        const matrices = shape.layers * matrices_per_layer + 1;
        const vectors_count = shape.layers * vectors_per_layer + 1;
        const perturbed = try gpa.alloc(Parameter, if (shape.rule.perturbsAll()) matrices + 1 + vectors_count else matrices);
        errdefer gpa.free(perturbed);

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
        for (perturbed, 0..) |*parameter, i| {
            const place = placeOf(shape, i);
            const kind: layout.Kind = if (i < matrices) .matrix else if (i == matrices) .embedding else .vector;
            const tensor_of = tensors[indexOf(place)];
            const cols: u32 = if (kind == .vector) 1 else if (place == .layer and place.layer.tensor == .project) 4 * shape.hidden else shape.hidden;
            const scale = shape.rule.scaleOf(place, cols);
            parameter.* = .{
                .kind = kind,
                .rows = @intCast(tensor_of.bytes / cols),
                .cols = cols,
                .shift = scale.shift,
                .root = scale.root,
                .number = shape.rule.numberOf(place),
                .weights = tensor_of.offset,
                .offsets = rows,
                .noise_a = noise,
                .noise_b = undefined,
                .noise_b_sums = undefined,
                .noise_end = undefined,
            };
            const lanes = layout.pair_lanes;
            if (kind == .vector) {
                parameter.noise_end = noise + @as(usize, parameter.rows) * lanes * @sizeOf(i16);
                parameter.noise_b = parameter.noise_end;
                parameter.noise_b_sums = parameter.noise_end;
            } else {
                parameter.noise_b = noise + @as(usize, parameter.rows) * lanes;
                parameter.noise_b_sums = parameter.noise_b + @as(usize, cols) * lanes;
                parameter.noise_end = parameter.noise_b_sums + lanes * @sizeOf(i32);
                rows += parameter.rows;
            }
            noise = parameter.noise_end;
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
            .perturbed = perturbed,
            .matrices = perturbed[0..matrices],
            .noise_bytes = noise,
        };
    }

    pub fn deinit(model: *Model) void {
        os.free(model.weights);
        os.free(model.offsets);
        std.heap.page_allocator.free(model.tensors);
        std.heap.page_allocator.free(model.perturbed);
    }

    /// The vectors that are perturbed.
    pub fn vectors(model: *const Model) []Parameter {
        return if (model.perturbed.len == model.matrices.len) &.{} else model.perturbed[model.matrices.len + 1 ..];
    }

    pub fn perturbedEmbedding(model: *const Model) ?*const Parameter {
        return if (model.perturbed.len == model.matrices.len) null else &model.perturbed[model.matrices.len];
    }

    /// A vector's place among those that are perturbed; null where none are.
    pub fn vectorIndex(model: *const Model, place: Place) ?usize {
        if (model.perturbed.len == model.matrices.len) return null;
        return switch (place) {
            .outer => model.shape.layers * vectors_per_layer,
            .layer => |at| at.index * vectors_per_layer + @intFromEnum(sameName(LayerVector, at.tensor)),
        };
    }

    /// The perturbed vector that is read after the product of matrix `index`, and before the next one or the one after; null where
    /// there is none.
    pub fn vectorAfter(model: *const Model, index: usize) ?usize {
        if (model.perturbed.len == model.matrices.len) return null;
        const first = index / matrices_per_layer * vectors_per_layer;
        if (index == model.matrices.len - 1) return 0;
        return switch (@as(LayerMatrix, @enumFromInt(index % matrices_per_layer))) {
            .wf => first + @intFromEnum(LayerVector.bf),
            .wh => first + @intFromEnum(LayerVector.bh),
            .uh => first + @intFromEnum(LayerVector.ln2),
            .project => first + vectors_per_layer, // the next layer's ln1, or ln_out
            .uf, .expand => null,
        };
    }

    pub fn tensor(model: *const Model, index: usize) ?[]i8 {
        if (index >= model.tensors.len) return null;
        const entry = model.tensors[index];
        return model.weights[entry.offset..][0..entry.bytes];
    }

    /// Number of a tensor in the order of the ABI.
    pub fn indexOf(place: Place) usize {
        return switch (place) {
            .outer => |kind| @intFromEnum(kind),
            .layer => |at| layerTensorIndex(at.index, at.tensor),
        };
    }

    pub fn outer(model: *const Model, kind: OuterTensor) []i8 {
        return model.tensor(@intFromEnum(kind)).?;
    }

    pub fn layer(model: *const Model, l: usize, kind: LayerTensor) []i8 {
        return model.tensor(layerTensorIndex(l, kind)).?;
    }

    pub fn matrixOf(model: *const Model, l: usize, kind: LayerMatrix) *const Parameter {
        return &model.matrices[l * matrices_per_layer + @intFromEnum(kind)];
    }

    pub fn head(model: *const Model) *const Parameter {
        return &model.matrices[model.matrices.len - 1];
    }

    /// Recomputes the row offsets of a tensor that was written from outside.
    pub fn sumRows(model: *Model, index: usize) void {
        for (model.perturbed) |matrix| {
            if (matrix.kind == .vector or matrix.weights != model.tensors[index].offset) continue;
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

/// The tensor of each perturbed parameter, in order.
fn placeOf(shape: Shape, index: usize) Place {
    const matrices = shape.layers * matrices_per_layer;
    if (index < matrices) return .{ .layer = .{
        .index = @intCast(index / matrices_per_layer),
        .tensor = sameName(LayerTensor, @as(LayerMatrix, @enumFromInt(index % matrices_per_layer))),
    } };
    if (index == matrices) return .{ .outer = .head };
    if (index == matrices + 1) return .{ .outer = .embedding };
    const vector = index - matrices - 2;
    if (vector == shape.layers * vectors_per_layer) return .{ .outer = .ln_out };
    return .{ .layer = .{
        .index = @intCast(vector / vectors_per_layer),
        .tensor = sameName(LayerTensor, @as(LayerVector, @enumFromInt(vector % vectors_per_layer))),
    } };
}

fn sameName(comptime To: type, from: anytype) To {
    return switch (from) {
        inline else => |tag| if (@hasField(To, @tagName(tag))) @field(To, @tagName(tag)) else unreachable,
    };
}
