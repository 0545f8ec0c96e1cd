// Vector kernels for table look-ups, one source for all tiers. The gradient goes table row by table row: a strip of columns
// stays in registers while the rows of that token are added in order, so any number of threads gives the same bits.
// Not the checks: embed.zig has them. Read next: embed_scalar.zig, the same in plain loops.
const ops = @import("ops.zig");
const plan = @import("embed.zig");
const scalar = @import("embed_scalar.zig");
const Lanes = @import("lanes.zig").Lanes;

const Bytes = [*]align(64) u8;

pub fn Kernels(comptime lanes: comptime_int) type {
    return struct {
        const L = Lanes(lanes);
        const V = L.V;

        pub fn embed(args: *const ops.Embed, phase: u32, tile: u32, _: Bytes, _: Bytes) u32 {
            const ids = args.ids.i32s();
            if (phase == 0) return plan.check(ids, args.rows, args.vocabulary, tile);
            const first_row, const end_row, const first_col, const end_col = plan.Grid.init(args.rows, args.width).block(tile);
            const n = end_col - first_col;
            for (first_row..end_row) |row| {
                const id: usize = @intCast(ids[row]);
                const from = id * args.width + first_col;
                const y = args.y.f32s() + row * args.width + first_col;
                switch (@as(ops.Dtype, @enumFromInt(args.dtype))) {
                    .bf16 => widened(args.table.bf16s() + from, y, n),
                    .i8 => scaled(args.table.i8s() + from, args.scales.f32s()[id], y, n),
                    else => copied(args.table.f32s() + from, y, n),
                }
            }
            return 0;
        }

        fn copied(x: [*]const f32, y: [*]f32, n: usize) void {
            var i: usize = 0;
            while (i + lanes <= n) : (i += lanes) L.store(y + i, L.load(x + i));
            while (i < n) : (i += 1) y[i] = x[i];
        }

        fn widened(x: [*]const u16, y: [*]f32, n: usize) void {
            var i: usize = 0;
            while (i + lanes <= n) : (i += lanes) L.store(y + i, L.widen(@as(*align(2) const @Vector(lanes, u16), @ptrCast(x + i)).*));
            while (i < n) : (i += 1) y[i] = @bitCast(@as(u32, x[i]) << 16);
        }

        fn scaled(x: [*]const i8, scale: f32, y: [*]f32, n: usize) void {
            var i: usize = 0;
            while (i + lanes <= n) : (i += lanes) {
                const q = @as(*align(1) const @Vector(lanes, i8), @ptrCast(x + i)).*;
                L.store(y + i, L.all(scale) * @as(V, @floatFromInt(q)));
            }
            while (i < n) : (i += 1) y[i] = scale * @as(f32, @floatFromInt(x[i]));
        }

        pub fn embed_backward(args: *const ops.EmbedBackward, phase: u32, tile: u32, workspace: Bytes, _: Bytes) u32 {
            const groups: plan.Groups = .at(workspace, args.vocabulary);
            if (phase == 0) return scalar.group(args, groups);
            const first_token, const end_token, const first_col, const end_col = plan.Blocks.init(args.vocabulary, args.width).tile(args, tile);
            for (first_token..end_token) |token| {
                const rows = groups.of(token);
                if (rows.len == 0 and args.accumulate == 1) continue;
                var col = first_col;
                while (col + 4 * lanes <= end_col) : (col += 4 * lanes) strip(4, args, rows, token, col);
                while (col + lanes <= end_col) : (col += lanes) strip(1, args, rows, token, col);
                if (col < end_col) last(args, rows, token, col, end_col - col);
            }
            return 0;
        }

        inline fn strip(comptime count: comptime_int, args: *const ops.EmbedBackward, rows: []const u32, token: usize, col: usize) void {
            const dy = args.dy.f32s() + col;
            var sum: [count]V = @splat(L.all(0));
            for (rows) |row| {
                const from = dy + @as(usize, row) * args.width;
                inline for (0..count) |s| sum[s] += L.load(from + s * lanes);
            }
            const to = args.dtable.f32s() + token * args.width + col;
            inline for (0..count) |s| {
                const at = to + s * lanes;
                L.store(at, if (args.accumulate == 1) L.load(at) + sum[s] else sum[s]);
            }
        }

        fn last(args: *const ops.EmbedBackward, rows: []const u32, token: usize, col: usize, n: usize) void {
            var sum = L.all(0);
            for (rows) |row| sum += L.loadPart(args.dy.f32s() + @as(usize, row) * args.width + col, n, 0);
            const to = args.dtable.f32s() + token * args.width + col;
            L.storePart(to, if (args.accumulate == 1) L.loadPart(to, n, 0) + sum else sum, n);
        }
    };
}
