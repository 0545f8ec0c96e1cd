// Vector kernels for matrix products, one source for all tiers: blocks of k, packed panels, a tile of C in registers.
// Not the checks: gemm.zig has them. Read next: gemm_pack.zig, gemm_few.zig (few rows), gemm_scalar.zig (plain loops).
const std = @import("std");
const ops = @import("ops.zig");
const plan = @import("gemm.zig");
const packing = @import("gemm_pack.zig");
const Finish = @import("gemm_finish.zig").Finish;
const Few = @import("gemm_few.zig").Few;

const Bytes = [*]align(64) u8;

/// f32 products; where bf16 is asked for, operands are rounded to it while they are packed.
pub fn Kernels(comptime lanes: comptime_int) type {
    return struct {
        pub const gemm = Product(lanes, false).gemm;
    };
}

/// As Kernels, for a CPU with AVX512_BF16: its pairwise products do what is computed in bf16.
pub const Bf16Kernels = struct {
    pub fn gemm(args: *const ops.Gemm, phase: u32, tile: u32, workspace: Bytes, scratch: Bytes) void {
        if (args.compute == @intFromEnum(ops.Dtype.bf16)) {
            Product(16, true).gemm(args, phase, tile, workspace, scratch);
        } else {
            Product(16, false).gemm(args, phase, tile, workspace, scratch);
        }
    }
};

fn Product(comptime lanes: comptime_int, comptime pairs: bool) type {
    return struct {
        const V = @Vector(lanes, f32);
        const Pack = packing.Packing(pairs);
        /// Rows and vectors of the register tile: 24 of AVX-512's and NEON's 32 registers, 12 of AVX2's 16.
        const mr = if (lanes == 8) 4 else 8;
        const nv = 3;
        const ahead = 16;

        pub fn gemm(args: *const ops.Gemm, phase: u32, tile: u32, workspace: Bytes, scratch: Bytes) void {
            @setRuntimeSafety(false);
            const grid = plan.gridOf(args, lanes);
            if (grid.few) return Few(lanes).tile(args, grid, tile, scratch);
            if (phase == 0) return packGroup(args, grid, tile, workspace);
            if (phase == 2) return Finish(lanes).addParts(args, grid, tile, workspace);
            const place = plan.placeOf(args, grid, tile);
            const at = plan.offsetsOf(args, place.batch);
            const a = sourceOfA(args, at.a);
            const b = sourceOfB(args, at.b);
            var packed_b: [*]u32 = @ptrCast(scratch);
            const packed_a: [*]u32 = @ptrCast(@alignCast(scratch + grid.packedB()));
            const panels: Panels = .of(place.cols);
            var sums: Sums = .{ .args = args, .row = place.row, .col = place.col, .offset = at.c, .first = true, .last = false, .to = undefined, .stride = undefined };
            if (grid.parts > 1) {
                const matrix = (place.batch * grid.parts + place.part) * args.m + place.row;
                sums.to = @as([*]f32, @ptrCast(workspace)) + matrix * args.n + place.col;
                sums.stride = args.n;
            } else if (grid.aside or args.c_dtype == @intFromEnum(ops.Dtype.bf16)) {
                sums.to = @ptrCast(@alignCast(scratch + grid.packedB() + grid.packedA()));
                sums.stride = grid.nt;
            } else {
                sums.to = args.c.f32s() + at.c / 4 + @as(usize, place.row) * args.ldc + place.col;
                sums.stride = args.ldc;
                sums.in_c = true;
            }
            var k: usize = 0;
            while (true) {
                const depth = @min(grid.kc, place.depth - k);
                sums.last = grid.parts == 1 and k + depth == place.depth;
                const units = Pack.units(depth);
                // While this block is worked off, the next one of B comes nearer, a few lines a register tile.
                var soon: Soon = .{};
                if (grid.shared_b) {
                    packed_b = sharedB(args, grid, place.batch, place.part, k / grid.kc, place.col, workspace);
                } else {
                    Pack.packWide(lanes, packed_b, b, place.col, place.cols, place.k + k, depth, panels, 0, panels.count);
                    const times = (place.rows + mr - 1) / mr * panels.count;
                    if (k + depth < place.depth) {
                        soon = .of(b, place.col, place.cols, place.k + k + depth, @min(grid.kc, place.depth - k - depth), times);
                    } else if (tile + 1 < grid.batches * grid.parts * grid.m_tiles * grid.n_tiles) {
                        const next = plan.placeOf(args, grid, tile + 1); // most often this worker's, too
                        soon = .of(sourceOfB(args, plan.offsetsOf(args, next.batch).b), next.col, next.cols, next.k, @min(grid.kc, next.depth), times);
                    }
                }
                if (grid.shared_a) {
                    const begin = sharedA(args, grid, place.batch, workspace) + sharedBlock(args, grid, place.k + k);
                    var factors = packedFactors(args, begin, units);
                    factors.address += place.row / mr * factors.panel;
                    group(&sums, panels, factors, packed_b, 0, place.rows, place.cols, units, &soon);
                } else if (args.ta == 0 and (a.kind == .f32) != pairs and a.kind != .rounded and (!pairs or depth % 2 == 0)) {
                    // As it lies: one value at a time is broadcast from it.
                    const step = if (pairs) 2 else 4;
                    const factors: Factors = .{ .address = a.address + (place.row * @as(usize, args.lda) + place.k + k) * step, .row = @as(usize, args.lda) * step, .unit = 4, .panel = mr * @as(usize, args.lda) * step };
                    group(&sums, panels, factors, packed_b, 0, place.rows, place.cols, units, &soon);
                } else {
                    var row: usize = 0;
                    while (row < place.rows) : (row += plan.group_rows) {
                        const rows = @min(plan.group_rows, place.rows - row);
                        packA(args, packed_a, a, place.row + row, rows, place.k + k, depth);
                        const factors = packedFactors(args, packed_a, units);
                        var next: Soon = .after(args, grid, tile, place, row + rows, k, depth, (rows + mr - 1) / mr * panels.count);
                        next.also = &soon;
                        group(&sums, panels, factors, packed_b, row, rows, place.cols, units, &next);
                    }
                }
                sums.first = false;
                k += depth;
                if (k >= place.depth) return;
            }
        }

        /// Packs a strip of B for all tiles.
        fn packStrip(args: *const ops.Gemm, grid: plan.Grid, tile: usize, workspace: Bytes) void {
            @setRuntimeSafety(false);
            const strips = grid.strips(lanes);
            const strip = tile % strips;
            const col = tile / strips % grid.n_tiles * grid.nt;
            const k_block = tile / strips / grid.n_tiles % grid.blocks();
            const part = tile / strips / grid.n_tiles / grid.blocks() % grid.parts;
            const batch = tile / strips / grid.n_tiles / grid.blocks() / grid.parts; // of all batches where B has but one matrix: 0
            const k = part * grid.part + k_block * grid.kc;
            const end = @min(args.k, (part + 1) * grid.part);
            const cols = @min(grid.nt, args.n - col);
            const panels: Panels = .of(cols);
            const first = strip * plan.strip_panels;
            if (first >= panels.count or k >= end) return;
            Pack.packWide(lanes, sharedB(args, grid, batch, part, k_block, col, workspace), sourceOfB(args, plan.offsetsOf(args, batch).b), col, cols, k, @min(grid.kc, end - k), panels, first, @min(first + plan.strip_panels, panels.count));
        }

        /// Where an n tile's panels of a block of k begin in the packed B.
        fn sharedB(args: *const ops.Gemm, grid: plan.Grid, batch: u64, part: usize, k_block: usize, col: usize, workspace: Bytes) [*]u32 {
            const matrix = if (grid.b_matrices == 1) 0 else batch;
            const begin = sharedA(args, grid, grid.batches, workspace);
            return begin + ((matrix * grid.parts + part) * grid.blocks() + k_block) * grid.blockUnits() + col * grid.kc;
        }

        fn sourceOfB(args: *const ops.Gemm, offset: usize) packing.Source {
            return .{
                .address = args.b.at + offset,
                .across = if (args.tb == 0) 1 else args.ldb,
                .along = if (args.tb == 0) args.ldb else 1,
                .kind = kindOf(args.b_dtype, args.compute == @intFromEnum(ops.Dtype.bf16)),
                .scales = if (args.scales.present()) args.scales.f32s() else null,
            };
        }

        /// Packs `group_rows` rows of a batch for all tiles, block of k by block: (block, row or panel, unit).
        fn packGroup(args: *const ops.Gemm, grid: plan.Grid, tile: u32, workspace: Bytes) void {
            @setRuntimeSafety(false);
            const before = grid.groups(args.m);
            if (tile >= before) return packStrip(args, grid, tile - before, workspace);
            const groups = (args.m + plan.group_rows - 1) / plan.group_rows;
            const batch = tile / groups;
            const row: usize = tile % groups * plan.group_rows;
            const a = sourceOfA(args, plan.offsetsOf(args, batch).a);
            const to = sharedA(args, grid, batch, workspace);
            for (0..grid.parts) |part| {
                const end = @min(args.k, (part + 1) * grid.part);
                var k = part * grid.part;
                while (k < end) : (k += grid.kc) {
                    const depth = @min(grid.kc, end - k);
                    const begin = sharedBlock(args, grid, k);
                    packA(args, to + begin + row / mr * packedFactors(args, to, Pack.units(depth)).panel / 4, a, row, @min(plan.group_rows, args.m - row), k, depth);
                }
            }
        }

        /// Where the block from k on begins in a batch's packed A; blocks have room for the gaps between panels.
        fn sharedBlock(args: *const ops.Gemm, grid: plan.Grid, k: usize) usize {
            const blocks = k / grid.part * ((grid.part + grid.kc - 1) / grid.kc) + k % grid.part / grid.kc;
            return blocks * std.mem.alignForward(usize, args.m, 8) * (grid.kc + 4);
        }

        fn sharedA(args: *const ops.Gemm, grid: plan.Grid, batch: u64, workspace: Bytes) [*]u32 {
            const units: [*]u32 = @ptrCast(workspace);
            return units + grid.partSums(args.m, args.n) / 4 + batch * grid.sharedUnits(args.m);
        }

        /// Rows of op(A), as rows of units where they lie along k, else as panels of mr.
        fn packA(args: *const ops.Gemm, to: [*]u32, a: packing.Source, row: usize, rows: usize, k: usize, depth: usize) void {
            if (args.ta == 0) Pack.packRows(lanes, to, a, row, rows, k, depth) else Pack.pack(mr, to, panelUnits(Pack.units(depth)), a, row, rows, k, depth);
        }

        /// From one packed panel to the next: a line more than it takes, or they would all fall on the same cache sets.
        fn panelUnits(units: usize) usize {
            return mr * units + 16;
        }

        fn packedFactors(args: *const ops.Gemm, from: [*]const u32, units: usize) Factors {
            const row: usize, const unit: usize = if (args.ta == 0) .{ units * 4, 4 } else .{ 4, mr * 4 };
            return .{ .address = @intFromPtr(from), .row = row, .unit = unit, .panel = if (args.ta == 0) mr * units * 4 else panelUnits(units) * 4 };
        }

        fn sourceOfA(args: *const ops.Gemm, offset: usize) packing.Source {
            return .{
                .address = args.a.at + offset,
                .across = if (args.ta == 0) args.lda else 1,
                .along = if (args.ta == 0) 1 else args.lda,
                .kind = kindOf(args.a_dtype, args.compute == @intFromEnum(ops.Dtype.bf16)),
            };
        }

        fn kindOf(dtype: u32, rounded: bool) packing.Kind {
            if (dtype == @intFromEnum(ops.Dtype.bf16)) return .bf16;
            if (dtype == @intFromEnum(ops.Dtype.i8)) return .i8;
            return if (rounded and !pairs) .rounded else .f32;
        }

        /// Panels of 3 vectors, at the end of 2 so that none is left with 1.
        const Panels = struct {
            count: usize,
            wide: usize,
            vectors: usize,

            fn of(cols: usize) Panels {
                const vectors = (cols + lanes - 1) / lanes;
                const count = (vectors + nv - 1) / nv;
                return .{ .count = count, .wide = if (vectors == 1) 0 else vectors -| 2 * count, .vectors = vectors };
            }
            pub fn width(panels: Panels, panel: usize) usize {
                return if (panel < panels.wide) 3 else @min(2, panels.vectors);
            }
            pub fn begin(panels: Panels, panel: usize) usize {
                return 2 * panel + @min(panel, panels.wide);
            }
        };

        const Sums = Finish(lanes).Sums;

        /// Memory that is packed soon, and is asked for in `times` steps: runs of `width` bytes, `stride` apart.
        const Soon = struct {
            address: usize = 0,
            stride: usize = 0,
            width: usize = 0,
            runs: usize = 0,
            lines: usize = 0,
            at: usize = 0,
            also: ?*Soon = null,

            fn of(source: packing.Source, first: usize, count: usize, k: usize, depth: usize, times: usize) Soon {
                const size = source.kind.bytes();
                var soon: Soon = .{ .address = source.address + (first * source.across + k * source.along) * size };
                if (source.across == 1) {
                    soon.stride = source.along * size;
                    soon.width = count * size;
                    soon.runs = depth;
                } else {
                    soon.stride = source.across * size;
                    soon.width = depth * size;
                    soon.runs = count;
                }
                soon.lines = ((soon.width + 63) / 64 * soon.runs + times - 1) / times;
                return soon;
            }

            /// The rows of A that are packed next: of this tile, of its next block of k, or of the next tile.
            fn after(args: *const ops.Gemm, grid: plan.Grid, tile: u32, place: plan.Place, row: usize, k: usize, depth: usize, times: usize) Soon {
                var there = place;
                var from = row;
                var at = k;
                if (row >= place.rows) {
                    from = 0;
                    at += depth;
                    if (at >= place.depth) {
                        if (tile + 1 == grid.batches * grid.parts * grid.m_tiles * grid.n_tiles) return .{};
                        at = 0;
                        there = plan.placeOf(args, grid, tile + 1);
                    }
                }
                return .of(sourceOfA(args, plan.offsetsOf(args, there.batch).a), there.row + from, @min(plan.group_rows, there.rows - from), there.k + at, @min(grid.kc, there.depth - at), times);
            }

            inline fn some(soon: *Soon) void {
                soon.ask();
                if (soon.also) |also| also.ask();
            }

            inline fn ask(soon: *Soon) void {
                var left = soon.lines;
                while (left > 0 and soon.runs > 0) : (left -= 1) {
                    @prefetch(@as([*]const u8, @ptrFromInt(soon.address + soon.at)), .{ .locality = 2 });
                    soon.at += 64;
                    if (soon.at < soon.width) continue;
                    soon.at = 0;
                    soon.address += soon.stride;
                    soon.runs -= 1;
                }
            }
        };

        /// Where a block of op(A) lies: bytes from row to row and from unit to unit of k; `panel`: from mr rows to the next.
        const Factors = struct { address: usize, row: usize, unit: usize, panel: usize };

        /// Rows times all packed columns.
        fn group(sums: *const Sums, panels: Panels, factors: Factors, packed_b: [*]const u32, row: usize, rows: usize, cols: usize, units: usize, soon: *Soon) void {
            @setRuntimeSafety(false);
            var a = factors;
            var i: usize = 0;
            while (i < rows) : (i += mr) {
                const height = @min(mr, rows - i);
                for (0..panels.count) |panel| {
                    if (a.row == 4 and panel < mr and i + mr < rows) {
                        // A part of the next packed panel. What lies as it is, the processor sees coming by itself.
                        const next = a.address + a.panel + panel * units * 4;
                        var at: usize = 0;
                        while (at < units * 4) : (at += 64) @prefetch(@as([*]const u8, @ptrFromInt(next + at)), .{});
                    }
                    soon.some();
                    const first = panels.begin(panel) * lanes;
                    const b = packed_b + first * units;
                    const width = @min(panels.width(panel) * lanes, cols - first);
                    switch (panels.width(panel)) {
                        inline 1, 2, 3 => |vectors| {
                            if (height > mr / 2) {
                                block(mr, vectors, sums, &a, b, units, row + i, height, first, width);
                            } else if (height > mr / 4) {
                                block(mr / 2, vectors, sums, &a, b, units, row + i, height, first, width);
                            } else {
                                block(mr / 4, vectors, sums, &a, b, units, row + i, height, first, width);
                            }
                        },
                        else => unreachable,
                    }
                }
                a.address += a.panel;
            }
        }

        /// One register tile: `rows` x `vectors`, of which height x width are in C.
        noinline fn block(comptime rows: comptime_int, comptime vectors: comptime_int, sums: *const Sums, factors: *const Factors, b: [*]const u32, units: usize, row: usize, height: usize, col: usize, width: usize) void {
            @setRuntimeSafety(false);
            const to = sums.to + row * sums.stride + col;
            const stride = sums.stride;
            const whole = height == rows and width == vectors * lanes;
            if (whole) {
                prefetchTile(rows, vectors, to, stride);
                if (sums.last and sums.in_c) {
                    inline for (.{ "slope", "factor" }) |name| {
                        const ref = @field(sums.args, name);
                        if (ref.present()) prefetchTile(rows, vectors, sums.place(ref, row, col), stride);
                    }
                }
            }
            var acc: [rows][vectors]V = @splat(@splat(@splat(0)));
            // Rows past the last repeat it.
            var a: [rows]usize = undefined;
            inline for (0..rows) |i| a[i] = factors.address + @min(i, height - 1) * factors.row;
            const step = factors.unit;
            var offset: usize = 0;
            var b_at = b;
            const b_end = b + units * vectors * lanes;
            while (b_at != b_end) {
                inline for (0..vectors) |j| @prefetch(b_at + ahead * vectors * lanes + j * lanes, .{});
                var line: [vectors]@Vector(lanes, u32) = undefined;
                inline for (0..vectors) |j| line[j] = @as(*align(4) const @Vector(lanes, u32), @ptrCast(b_at + j * lanes)).*;
                inline for (0..rows) |i| {
                    const factor: @Vector(lanes, u32) = @splat(@as(*align(1) const u32, @ptrFromInt(a[i] + offset)).*);
                    inline for (0..vectors) |j| acc[i][j] = multiplyAdd(factor, line[j], acc[i][j]);
                }
                offset += step;
                b_at += vectors * lanes;
            }
            const alpha: V = @splat(sums.args.alpha);
            if (whole and sums.simple()) {
                const adds = !sums.first or sums.adds();
                if (!sums.finishes()) {
                    if (adds) {
                        inline for (0..rows) |i| {
                            inline for (0..vectors) |j| {
                                const there = to + i * stride + j * lanes;
                                store(there, @mulAdd(V, alpha, acc[i][j], load(there)));
                            }
                        }
                    } else {
                        inline for (0..rows) |i| {
                            inline for (0..vectors) |j| store(to + i * stride + j * lanes, alpha * acc[i][j]);
                        }
                    }
                    return;
                }
                const bias = sums.biasOf(col);
                var shift: [vectors]V = @splat(@splat(0));
                if (bias) |from| {
                    inline for (0..vectors) |j| shift[j] = load(from + j * lanes);
                }
                inline for (0..rows) |i| {
                    inline for (0..vectors) |j| {
                        const x = if (adds) @mulAdd(V, alpha, acc[i][j], load(to + i * stride + j * lanes)) else alpha * acc[i][j];
                        store(to + i * stride + j * lanes, x + shift[j]);
                    }
                }
                return Finish(lanes).finish(sums, row, col, rows, vectors * lanes);
            }
            var values: [rows][vectors * lanes]f32 align(64) = undefined;
            inline for (0..rows) |i| {
                inline for (0..vectors) |j| store(@as([*]f32, &values[i]) + j * lanes, alpha * acc[i][j]);
            }
            for (0..height) |i| Finish(lanes).row(sums, row + i, col, width, &values[i]);
        }

        /// Lines that will be written.
        inline fn prefetchTile(comptime rows: comptime_int, comptime vectors: comptime_int, to: [*]f32, stride: usize) void {
            inline for (0..rows) |i| {
                inline for (0..(vectors * lanes + 31) / 16) |line| @prefetch(to + i * stride + @min(line * 16, vectors * lanes - 1), .{ .rw = .write, .locality = 3 });
            }
        }

        inline fn multiplyAdd(a: @Vector(lanes, u32), b: @Vector(lanes, u32), acc: V) V {
            if (!pairs) return @mulAdd(V, @bitCast(a), @bitCast(b), acc);
            return asm ("vdpbf16ps %[b], %[a], %[acc]"
                : [acc] "=v" (-> V),
                : [_] "0" (acc),
                  [a] "v" (a),
                  [b] "v" (b),
            );
        }

        inline fn load(from: [*]const f32) V {
            return @as(*align(4) const V, @ptrCast(from)).*;
        }

        inline fn store(to: [*]f32, value: V) void {
            @as(*align(4) V, @ptrCast(to)).* = value;
        }
    };
}
