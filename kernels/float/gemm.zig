// Plans of matrix products: every size and flag checked, operands linked, work cut into tiles by the shape alone.
// Not the kernels: gemm_scalar.zig (plain loops, the oracle), gemm_vector.zig (SIMD). Read next: ops.zig.
const std = @import("std");
const ops = @import("ops.zig");

/// Products of at most this many rows take each weight once, as it lies (gemm_few.zig): nothing would use a packed copy twice.
pub const few_rows = 4;
/// Rows that are packed together: what is read across rows then takes whole cache lines.
pub const group_rows = 64;

/// Panels of packed B that are packed together, where B is packed once for all tiles.
pub const strip_panels = 2;

/// How a product is cut. Tiles of phase 0, where A or B is packed for all: of A: batch, then `group_rows` rows; then of B: matrix,
/// block of k, n tile, strip. Of phase 1: batch, part of k, m tile, n tile, the last fastest. With more than one part the sums of
/// each go to the workspace, (batch, part, m, n), and the tiles of phase 2 add them up: batch, then `sum_rows` rows.
pub const Grid = struct {
    few: bool,
    batches: u64,
    parts: u32,
    part: u32,
    m_tiles: u32,
    mt: u32,
    n_tiles: u32,
    nt: u32,
    /// k is worked off in blocks of this many, so that a block of B stays in the second-level cache.
    kc: u32,
    sum_rows: u32,
    /// Sums of all but the last block of k wait in the scratch, not in C.
    aside: bool,
    /// A needs packing and would be packed by several tiles: it is packed once, into the workspace behind the sums.
    shared_a: bool,
    /// Several m tiles would pack the same part of B: all of B is packed once, into the workspace behind A.
    shared_b: bool,
    /// Matrices of B: 1 where all batches have the same.
    b_matrices: u64,

    /// Bytes of the sums of all parts in the workspace.
    pub fn partSums(grid: Grid, m: u32, n: u32) u64 {
        return if (grid.parts > 1) grid.batches *| grid.parts *| m *| n *| 4 else 0;
    }
    /// Blocks of k in a part.
    pub fn blocks(grid: Grid) u32 {
        return ceil(grid.part, @max(grid.kc, 1));
    }
    /// Units of 4 bytes of one batch's packed A: an f32, or at most one f32 where bf16 is computed in.
    pub fn sharedUnits(grid: Grid, m: u32) u64 {
        return if (grid.shared_a) @as(u64, roundUp(m, 8)) * grid.parts * grid.blocks() * (grid.kc + 4) else 0;
    }
    /// The same of one block of k of packed B.
    pub fn blockUnits(grid: Grid) u64 {
        return if (grid.shared_b) @as(u64, grid.n_tiles) * grid.nt * grid.kc else 0;
    }
    /// Tiles of phase 0 for A, and those for one matrix of B.
    pub fn groups(grid: Grid, m: u32) u64 {
        return if (grid.shared_a) grid.batches * ceil(m, group_rows) else 0;
    }
    pub fn strips(grid: Grid, lanes: u32) u32 {
        return ceil(grid.nt, strip_panels * 3 * lanes);
    }
    pub fn packs(grid: Grid, lanes: u32) u64 {
        return if (grid.shared_b) @as(u64, grid.parts) * grid.blocks() * grid.n_tiles * grid.strips(lanes) else 0;
    }

    /// Bytes of each piece of the scratch, in this order: packed B, packed A, sums aside.
    pub fn packedB(grid: Grid) usize {
        return if (grid.shared_b) 0 else aligned(@as(usize, grid.nt) * grid.kc * 4);
    }
    pub fn packedA(grid: Grid) usize {
        return aligned(@as(usize, group_rows) * (grid.kc + 4) * 4);
    }
    pub fn sumsAside(grid: Grid) usize {
        return if (grid.aside) aligned(@as(usize, grid.mt) * grid.nt * 4) else 0;
    }
};

fn aligned(size: usize) usize {
    return std.mem.alignForward(usize, size, 64);
}

fn ceil(a: u64, b: u64) u32 {
    return @intCast(@max(1, (a + b - 1) / b));
}

fn roundUp(a: u32, unit: u32) u32 {
    return (a + unit - 1) / unit * unit;
}

/// The cut of a product with m, n > 0 on vectors of `lanes`.
pub fn gridOf(args: *const ops.Gemm, lanes: u32) Grid {
    const m = args.m;
    const n = args.n;
    const k = args.k;
    const batches = @as(u64, args.outer) * args.inner;
    const bf16 = args.compute == @intFromEnum(ops.Dtype.bf16);
    var grid: Grid = .{
        .few = m <= few_rows,
        .batches = batches,
        .parts = 1,
        .part = k,
        .m_tiles = 1,
        .mt = m,
        .n_tiles = 1,
        .nt = n,
        .kc = k,
        .sum_rows = 1,
        .aside = false,
        .shared_a = false,
        .shared_b = false,
        .b_matrices = if ((args.outer == 1 or args.b_outer == 0) and (args.inner == 1 or args.b_inner == 0)) 1 else batches,
    };
    if (grid.few) {
        // About 128 KiB of weights a tile.
        const nt = if (args.tb == 0) 256 else std.math.clamp(roundUp(ceil(1 << 15, @max(k, 1)), 8), 8, 1024);
        grid.nt = @min(n, nt);
        grid.n_tiles = ceil(n, grid.nt);
        return grid;
    }
    // Enough tiles for threads to share.
    const work = batches *| m *| n *| k;
    const enough: u32 = if (work >= 1 << 26) 16 else if (work >= 1 << 22) 8 else 4;
    const panel = 3 * lanes;
    const can_share = grid.b_matrices *| n *| k <= 1 << 23;
    // Many columns for the rows: each tile packs a part of B that nobody else needs, and the next one's comes nearer meanwhile.
    const own_b = m <= 768 and n >= 16 * panel;
    const tallest: u32 = if (own_b) 768 else if (can_share) 256 else 1024;
    const widest: u32 = if (args.ta == 1) 384 else 192;
    var n_tiles = ceil(n, widest);
    var m_tiles = ceil(m, tallest);
    if (own_b) n_tiles = @max(n_tiles, @min(ceil(enough, batches), ceil(n, if (can_share) panel else 2 * panel)));
    if (batches * m_tiles * n_tiles < 8) m_tiles = @max(m_tiles, @min(ceil(enough, batches * n_tiles), ceil(m, if (can_share) 48 else 384)));
    if (batches * m_tiles * n_tiles < enough) m_tiles = @max(m_tiles, @min(ceil(enough, batches * n_tiles), ceil(m, if (can_share) 128 else 384)));
    if (batches * m_tiles * n_tiles < enough) n_tiles = @max(n_tiles, @min(ceil(enough, batches * m_tiles), ceil(n, 2 * panel)));
    // Else parts of k.
    if (batches * m_tiles * n_tiles < enough and k >= 2048) {
        grid.parts = @min(ceil(enough, batches * m_tiles * n_tiles), k / 1024);
        grid.part = roundUp(ceil(k, grid.parts), 2);
        grid.parts = ceil(k, grid.part);
        grid.sum_rows = ceil(1 << 14, n);
    }
    grid.nt = roundUp(ceil(n, n_tiles), panel);
    grid.n_tiles = ceil(n, grid.nt);
    grid.mt = roundUp(ceil(m, m_tiles), 8);
    grid.m_tiles = ceil(m, grid.mt);
    const deepest: u32 = if (bf16 and lanes == 16) 768 else 384;
    grid.kc = roundUp(ceil(grid.part, ceil(grid.part, deepest)), 2);
    const as_it_lies = args.ta == 0 and if (bf16) args.a_dtype == @intFromEnum(ops.Dtype.bf16) and lanes == 16 and k % 2 == 0 else args.a_dtype == @intFromEnum(ops.Dtype.f32);
    grid.shared_a = k > 0 and !as_it_lies and grid.n_tiles > 1 and batches *| m *| k <= 1 << 24;
    grid.shared_b = k > 0 and can_share and grid.m_tiles * batches / grid.b_matrices > 1;
    const c_keeps_sums = args.c_dtype == @intFromEnum(ops.Dtype.f32) and
        (args.beta == 0 or (args.activation == 0 and !args.factor.present()));
    if (grid.parts == 1 and grid.part > grid.kc and !c_keeps_sums) {
        grid.aside = true;
        grid.mt = @min(grid.mt, 256);
        grid.m_tiles = ceil(m, grid.mt);
    }
    return grid;
}

/// Where a tile of phase 1 lies.
pub const Place = struct { batch: u64, part: u32, row: u32, rows: u32, col: u32, cols: u32, k: u32, depth: u32 };

pub fn placeOf(args: *const ops.Gemm, grid: Grid, tile: u32) Place {
    const n_tile = tile % grid.n_tiles;
    const m_tile = tile / grid.n_tiles % grid.m_tiles;
    const part = tile / grid.n_tiles / grid.m_tiles % grid.parts;
    const row = m_tile * grid.mt;
    const col = n_tile * grid.nt;
    const k = part * grid.part;
    return .{
        .batch = tile / grid.n_tiles / grid.m_tiles / grid.parts,
        .part = part,
        .row = row,
        .rows = @min(grid.mt, args.m - row),
        .col = col,
        .cols = @min(grid.nt, args.n - col),
        .k = k,
        .depth = @min(grid.part, args.k - k),
    };
}

/// Bytes from the first batch's matrices to those of `batch`.
pub const Offsets = struct { a: usize, b: usize, c: usize };

pub fn offsetsOf(args: *const ops.Gemm, batch: u64) Offsets {
    const outer: usize = @intCast(batch / args.inner);
    const inner: usize = @intCast(batch % args.inner);
    return .{
        .a = (outer * args.a_outer + inner * args.a_inner) * bytesOf(args.a_dtype),
        .b = (outer * args.b_outer + inner * args.b_inner) * bytesOf(args.b_dtype),
        .c = (outer * args.c_outer + inner * args.c_inner) * bytesOf(args.c_dtype),
    };
}

pub fn bytesOf(dtype: u32) usize {
    return @as(ops.Dtype, @enumFromInt(dtype)).bytes();
}

pub fn gemm(args: *ops.Gemm, link: *ops.Link) ops.Error!ops.Plan {
    const ta = try link.choice(bool, args.ta, "ta");
    const tb = try link.choice(bool, args.tb, "tb");
    const a_dtype = try float(link, args.a_dtype, "a_dtype");
    const b_dtype = try link.choice(ops.Dtype, args.b_dtype, "b_dtype");
    if (b_dtype == .i32) return link.fail(error.BadArgument, "b_dtype: f32, bf16 or i8", .{});
    const c_dtype = try float(link, args.c_dtype, "c_dtype");
    const compute = try float(link, args.compute, "compute");
    const activation = try link.choice(ops.Activation, args.activation, "activation");
    if (activation == .none and args.slope.present()) return link.fail(error.BadArgument, "slope: without an activation", .{});
    if (args.m > 1 and args.ldc < args.n) return link.fail(error.BadShape, "c: row stride {d}, rows of {d}", .{ args.ldc, args.n });
    if ((args.outer > 1 and args.c_outer == 0) or (args.inner > 1 and args.c_inner == 0)) return link.fail(error.BadArgument, "c: batches on one another", .{});
    if (b_dtype == .i8) {
        if (!tb or compute != .f32) return link.fail(error.BadArgument, "b of i8: rows of weights, computed in f32", .{});
        if ((args.outer > 1 and args.b_outer != 0) or (args.inner > 1 and args.b_inner != 0)) return link.fail(error.BadArgument, "b of i8: one matrix for all batches", .{});
        try link.dense(&args.scales, &.{args.n}, .f32, "scales");
    }
    const m = args.m;
    const n = args.n;
    const k = args.k;
    const batch = [2]u32{ args.outer, args.inner };
    const a_sizes = if (ta) [2]u32{ k, m } else [2]u32{ m, k };
    const b_sizes = if (tb) [2]u32{ n, k } else [2]u32{ k, n };
    try link.strided(&args.a, &(batch ++ a_sizes), &.{ args.a_outer, args.a_inner, args.lda, 1 }, a_dtype, "a");
    try link.strided(&args.b, &(batch ++ b_sizes), &.{ args.b_outer, args.b_inner, args.ldb, 1 }, b_dtype, "b");
    const c_sizes = batch ++ [2]u32{ m, n };
    const c_strides = [_]u32{ args.c_outer, args.c_inner, args.ldc, 1 };
    try link.strided(&args.c, &c_sizes, &c_strides, c_dtype, "c");
    inline for (.{ "slope", "factor" }) |name| {
        if (@field(args, name).present()) try link.strided(&@field(args, name), &c_sizes, &c_strides, c_dtype, name);
    }
    try link.optional(&args.bias, &.{n}, .f32, "bias");
    const batches = @as(u64, args.outer) * args.inner;
    if (m == 0 or n == 0 or batches == 0) return .{ .tiles = .{ 0, 0, 0 } };
    const work = @as(u64, m) * n *| @max(k, 1) *| batches;
    if (link.lanes == 1) {
        const tiles = std.math.cast(u32, batches *| m) orelse return link.fail(error.BadShape, "too many rows", .{});
        return .{ .tiles = .{ tiles, 0, 0 }, .work = work };
    }
    const grid = gridOf(args, link.lanes);
    const tiles = batches *| grid.parts *| grid.m_tiles *| grid.n_tiles;
    const sums = if (grid.parts > 1) batches *| ceil(m, grid.sum_rows) else 0;
    const packs = grid.groups(m) +| grid.b_matrices *| grid.packs(link.lanes);
    if (packs > std.math.maxInt(u32) or tiles > std.math.maxInt(u32) or sums > std.math.maxInt(u32)) return link.fail(error.BadShape, "too many tiles", .{});
    return .{
        .tiles = .{ @intCast(packs), @intCast(tiles), @intCast(sums) },
        .workspace = @intCast(grid.partSums(m, n) +| (batches * grid.sharedUnits(m) +| grid.b_matrices *| grid.parts *| grid.blocks() *| grid.blockUnits()) *| 4),
        .scratch = if (grid.few) @as(usize, m) * (aligned(@as(usize, k) * 4) + 3 * aligned(@as(usize, grid.nt) * 4)) else grid.packedB() + grid.packedA() + grid.sumsAside(),
        .work = work,
    };
}

fn float(link: *ops.Link, value: u32, name: []const u8) ops.Error!ops.Dtype {
    const dtype = try link.choice(ops.Dtype, value, name);
    return if (dtype == .f32 or dtype == .bf16) dtype else link.fail(error.BadArgument, "{s}: f32 or bf16", .{name});
}
