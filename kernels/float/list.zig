// Where each operation's plan is: the families of float kernels, collected by the names in ops.Op.
// No code of its own. A plan is a function of the operation's name in its family's file. Read next: ops.zig, scalar.zig, vector.zig.
const std = @import("std");
const ops = @import("ops.zig");

const families = .{
    @import("gemm.zig"),
    @import("attention.zig"),
    @import("norm.zig"),
    @import("rope.zig"),
    @import("softmax.zig"),
    @import("elementwise.zig"),
    @import("activate.zig"),
    @import("reduce.zig"),
    @import("embed.zig"),
    @import("loss.zig"),
    @import("optimize.zig"),
};

/// fn NAME(args: *Args, link: *ops.Link) ops.Error!ops.Plan, with the arguments' type erased.
pub const Planner = *const fn (args: *anyopaque, link: *ops.Link) ops.Error!ops.Plan;

pub const planners: [ops.op_count]?Planner = planners: {
    var result: [ops.op_count]?Planner = @splat(null);
    for (families) |family| {
        for (std.enums.values(ops.Op)) |op| {
            if (!@hasDecl(family, @tagName(op))) continue;
            const plan = @field(family, @tagName(op));
            if (@TypeOf(plan) == fn (*ops.ArgsOf(op), *ops.Link) ops.Error!ops.Plan) result[@intFromEnum(op)] = erased(ops.ArgsOf(op), plan);
        }
    }
    break :planners result;
};

fn erased(comptime Args: type, comptime plan: fn (*Args, *ops.Link) ops.Error!ops.Plan) Planner {
    return struct {
        fn run(args: *anyopaque, link: *ops.Link) ops.Error!ops.Plan {
            const typed: *Args = @ptrCast(@alignCast(args));
            const result = try plan(typed, link);
            // A reference that its plan forgot would be taken for an address.
            inline for (@typeInfo(Args).@"struct".fields) |field| {
                if (field.type != ops.Ref) continue;
                const ref = @field(typed, field.name);
                if (ref.present() and ref.linked != 1) return link.fail(error.BadArgument, "{s} is not used here", .{field.name});
            }
            return result;
        }
    }.run;
}
