// The plain twin of table look-ups: loops that read like the formulas in ops.zig, the oracle of the tests.
// Not fast. Read next: embed_vector.zig.
const ops = @import("ops.zig");
const plan = @import("embed.zig");
const widen = @import("elementwise_scalar.zig").widen;

const Bytes = [*]align(64) u8;

pub fn embed(args: *const ops.Embed, phase: u32, tile: u32, _: Bytes, _: Bytes) u32 {
    const ids = args.ids.i32s();
    if (phase == 0) return plan.check(ids, args.rows, args.vocabulary, tile);
    const first_row, const end_row, const first_col, const end_col = plan.Grid.init(args.rows, args.width).block(tile);
    for (first_row..end_row) |row| {
        for (first_col..end_col) |col| {
            const id: usize = @intCast(ids[row]);
            const from = id * args.width + col;
            args.y.f32s()[row * args.width + col] = switch (@as(ops.Dtype, @enumFromInt(args.dtype))) {
                .bf16 => widen(args.table.bf16s()[from]),
                .i8 => args.scales.f32s()[id] * @as(f32, @floatFromInt(args.table.i8s()[from])),
                else => args.table.f32s()[from],
            };
        }
    }
    return 0;
}

pub fn embed_backward(args: *const ops.EmbedBackward, phase: u32, tile: u32, workspace: Bytes, _: Bytes) u32 {
    const groups: plan.Groups = .at(workspace, args.vocabulary);
    if (phase == 0) return group(args, groups);
    const first_token, const end_token, const first_col, const end_col = plan.Blocks.init(args.vocabulary, args.width).tile(args, tile);
    for (first_token..end_token) |token| {
        for (first_col..end_col) |col| {
            var sum: f32 = 0;
            for (groups.of(token)) |row| sum += args.dy.f32s()[@as(usize, row) * args.width + col];
            const to = &args.dtable.f32s()[token * args.width + col];
            to.* = if (args.accumulate == 1) to.* + sum else sum;
        }
    }
    return 0;
}

/// The first phase of embed_backward: checks the ids and groups the rows by them.
pub fn group(args: *const ops.EmbedBackward, groups: plan.Groups) u32 {
    const ids = args.ids.i32s();
    for (0..@intCast((@as(u64, args.rows) + plan.check_rows - 1) / plan.check_rows)) |part| {
        const fault = plan.check(ids, args.rows, args.vocabulary, @intCast(part));
        if (fault != 0) return fault;
    }
    groups.build(ids, args.rows, args.vocabulary);
    return 0;
}
