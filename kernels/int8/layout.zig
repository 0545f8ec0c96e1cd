// How activations, noise and parameters lie in memory: the contract between the drivers and every tier's kernels.
// No arithmetic of the model here. Read next: ops.zig (what a tier must offer), forward.zig (who calls it).
//
// Letters: V vocabulary, H hidden, L layers, T sequence, P pairs, N = 2P members, M rows (outputs), K columns (inputs).

/// Pairs in a group: the 16 lanes of one vector of 32-bit sums.
pub const pair_lanes = 16;
/// Members in a group: 16 plus lanes, then 16 minus lanes of the same pairs.
pub const group_lanes = 2 * pair_lanes;

/// Groups of the widest panel.
pub const max_groups = 4;

/// Activations of a panel: [K/4][lanes][4] bytes, so that one 32-bit lane holds four consecutive inputs of one member.
/// `lanes` = groups * group_lanes.
pub fn activationBytes(k: usize, groups: usize) usize {
    return k * groups * group_lanes;
}

/// Tensors of one layer, in the order of the ABI (src/models/egg.ts lists the same).
pub const LayerTensor = enum(u32) { ln1, wf, uf, wh, uh, bf, bh, ln2, expand, project };
/// Tensors outside the layers come first.
pub const OuterTensor = enum(u32) { embedding, head, ln_out };
/// Matrices of one layer, in the order in which they are perturbed.
pub const LayerMatrix = enum(u32) { wf, uf, wh, uh, expand, project };
/// Vectors of one layer.
pub const LayerVector = enum(u32) { ln1, bf, bh, ln2 };

/// Which tensor it is.
pub const Place = union(enum) {
    outer: OuterTensor,
    layer: struct { index: u32, tensor: LayerTensor },
};

/// A matrix product is its int32 sum, shifted right and then divided by `root`, both rounding down.
pub const Scale = struct { shift: u32, root: u32 };

/// What is perturbed: a matrix by A * B^T, the embedding likewise (A by token), a vector value by value.
pub const Kind = enum(u32) { matrix, embedding, vector };

/// One perturbed parameter: its place in the model slab and in a group's noise block.
pub const Parameter = extern struct {
    kind: Kind,
    rows: u32,
    /// 1 for a vector.
    cols: u32,
    /// A matrix product is its int32 sum, shifted right and then divided by `root`, both rounding down.
    shift: u32,
    root: u32,
    /// What tells its noise from that of others, in the rule's own count.
    number: u32,
    /// Offset of the weights, row-major (rows, cols), in the model slab.
    weights: usize,
    /// Place of the first row in the model's row offsets; unused for a vector.
    offsets: usize,
    /// Offsets in a group's noise block: A [rows][16], B [cols/4][16][4], then the 16 sums of B over its inputs.
    /// A vector has products of two values in 16 bits, [rows][16], at `noise_a`, and nothing else.
    noise_a: usize,
    noise_b: usize,
    noise_b_sums: usize,
    noise_end: usize,

    /// Bytes of one group's noise.
    pub fn noiseBytes(parameter: Parameter) usize {
        return parameter.noise_end - parameter.noise_a;
    }
};

pub fn alignUp(n: usize, comptime alignment: usize) usize {
    return (n + alignment - 1) & ~@as(usize, alignment - 1);
}
