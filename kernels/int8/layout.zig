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

/// One perturbed matrix: its place in the model slab and in a group's noise block.
pub const Matrix = extern struct {
    rows: u32,
    cols: u32,
    /// Right shift of the int32 sum (DESIGN of egg.c: 8, or 9 for the projection).
    shift: u32,
    /// Added to the pair's seed (egg.c: 100*layer + matrix number).
    seed_offset: u32,
    /// Offset of the weights, row-major (rows, cols), in the model slab.
    weights: usize,
    /// Place of the first row in the model's row offsets.
    offsets: usize,
    /// Offsets in a group's noise block: A [rows][16], B [cols/4][16][4], then the 16 sums of B over its inputs.
    noise_a: usize,
    noise_b: usize,
    noise_b_sums: usize,
};

pub fn alignUp(n: usize, comptime alignment: usize) usize {
    return (n + alignment - 1) & ~@as(usize, alignment - 1);
}
