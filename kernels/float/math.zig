// Exponential, logarithm, tanh, sigmoid and rsqrt of f32 vectors, at most 2 units in the last place from the true value
// wherever that is (denormals too), exact at 0, the infinities and NaN. Any `@Vector(n, f32)`; `exp1` and so on for one f32.
// Not kernels: activate_vector.zig, loss_vector.zig and others call these. They need no runtime library, so tiers can use them.
const std = @import("std");

fn Lanes(comptime V: type) comptime_int {
    return @typeInfo(V).vector.len;
}

inline fn all(comptime V: type, value: f32) V {
    return @splat(value);
}

/// c0 + x (c1 + x (c2 + ..)).
inline fn polynomial(x: anytype, comptime coefficients: []const f32) @TypeOf(x) {
    const V = @TypeOf(x);
    var sum = all(V, coefficients[coefficients.len - 1]);
    inline for (1..coefficients.len) |i| sum = @mulAdd(V, sum, x, all(V, coefficients[coefficients.len - 1 - i]));
    return sum;
}

/// Adding this leaves a number below 2^22 rounded to an integer in the low bits.
const rounding: f32 = 1.5 * (1 << 23);

/// 2^n for -126 <= n <= 127; infinite for 128.
inline fn power(n: anytype) @Vector(Lanes(@TypeOf(n)), f32) {
    const lanes = Lanes(@TypeOf(n));
    return @bitCast((n +% @as(@Vector(lanes, i32), @splat(127))) << @as(@Vector(lanes, u5), @splat(23)));
}

/// e^r and n of e^x = 2^n e^r, |r| <= ln 2 / 2.
inline fn factors(x: anytype) struct { @TypeOf(x), @Vector(Lanes(@TypeOf(x)), i32) } {
    const V = @TypeOf(x);
    const I = @Vector(Lanes(V), i32);
    const shifted = @mulAdd(V, x, all(V, std.math.log2e), all(V, rounding));
    const whole = shifted - all(V, rounding);
    const r = @mulAdd(V, whole, all(V, -0x1.7f7d1cp-20), @mulAdd(V, whole, all(V, -0x1.62e4p-1), x));
    // e^r = 1 + r + r^2 (1/2 + ..), a minimax polynomial.
    const tail = polynomial(r, &.{ 5.0000001201e-1, 1.6666665459e-1, 4.1665795894e-2, 8.3334519073e-3, 1.3981999507e-3, 1.9875691500e-4 });
    // What 1 + r loses is added again: about 0.75 units in the last place in all.
    const high = all(V, 1) + r;
    const value = high + @mulAdd(V, tail * r, r, r - (high - all(V, 1)));
    return .{ value, @as(I, @bitCast(shifted)) -% @as(I, @splat(@bitCast(rounding))) };
}

/// e^x; 2^n in two factors, so that denormal results are rounded once.
pub inline fn exp(x: anytype) @TypeOf(x) {
    const V = @TypeOf(x);
    // Beyond these the result is infinite or 0. Written so that NaN stays.
    const below = @select(f32, x > all(V, 89), all(V, 89), x);
    const value, const n = factors(@select(f32, below < all(V, -104), all(V, -104), below));
    const half = n >> @as(@Vector(Lanes(V), u5), @splat(1));
    return value * power(half) * power(n -% half);
}

/// e^x for x <= 88, as softmax and cross-entropy need it: results below the smallest normal number become 0.
pub inline fn expFlushed(x: anytype) @TypeOf(x) {
    const V = @TypeOf(x);
    const clamped = @select(f32, x < all(V, -88), all(V, -88), x); // 2^-127, whose bits as made below are those of 0
    const value, const n = factors(clamped);
    return value * power(n);
}

/// ln x = e ln 2 + ln m, sqrt(1/2) <= m < sqrt 2. Negative numbers give NaN, 0 gives -inf.
pub inline fn log(x: anytype) @TypeOf(x) {
    const V = @TypeOf(x);
    const I = @Vector(Lanes(V), i32);
    const shift: @Vector(Lanes(V), u5) = @splat(23);
    const small = x < all(V, std.math.floatMin(f32));
    const normal = @select(f32, small, x * all(V, 1 << 23), x);
    // Counted from sqrt(1/2), so that the exponent's bits are those of the m above.
    const root: I = @splat(@bitCast(@as(f32, std.math.sqrt1_2)));
    const bits = @as(I, @bitCast(normal)) -% root;
    const exponent = @select(f32, small, all(V, -23), all(V, 0)) + @as(V, @floatFromInt(bits >> shift));
    const m: V = @bitCast((bits & @as(I, @splat((1 << 23) - 1))) +% root);
    const f = m - all(V, 1);
    const tail = polynomial(f, &.{
        3.3333331174e-1,  -2.4999993993e-1, 2.0000714765e-1,  -1.6668057665e-1, 1.4249322787e-1,
        -1.2420140846e-1, 1.1676998740e-1,  -1.1514610310e-1, 7.0376836292e-2,
    });
    const square = f * f;
    // ln m = f - f^2/2 + f^3 tail; the parts of ln 2: the first times an exponent is exact.
    const low = @mulAdd(V, exponent, all(V, -2.12194440e-4), @mulAdd(V, square * f, tail, all(V, -0.5) * square));
    const value = @mulAdd(V, exponent, all(V, 0.693359375), f + low);
    const positive = @select(f32, x < all(V, std.math.inf(f32)), value, x); // inf and NaN as they are
    const defined = @select(f32, x < all(V, 0), all(V, std.math.nan(f32)), positive);
    return @select(f32, x == all(V, 0), all(V, -std.math.inf(f32)), defined);
}

/// A polynomial near 0, 1 - 2 / (e^(2|x|) + 1) beyond.
pub inline fn tanh(x: anytype) @TypeOf(x) {
    const V = @TypeOf(x);
    const size = @abs(x);
    const square = x * x;
    const near = @mulAdd(V, polynomial(square, &.{ -3.33332819422e-1, 1.33314422036e-1, -5.37397155531e-2, 2.06390887954e-2, -5.70498872745e-3 }) * square, x, x);
    const far = all(V, 1) - all(V, 2) / (exp(size + size) + all(V, 1));
    return @select(f32, size < all(V, 0.625), near, @select(f32, x < all(V, 0), -far, far));
}

/// 1 / (1 + e^-x), without overflow and without losing small results.
pub inline fn sigmoid(x: anytype) @TypeOf(x) {
    return sigmoidAndSlope(x)[0];
}

/// s = sigmoid(x) and s (1 - s), its derivative, without cancellation. With e = e^-|x| and q = e / (1 + e), sigmoid is 1 - q
/// on the right and q on the left; q once more as e (1 - q) has less of the errors of its sum and quotient.
pub inline fn sigmoidAndSlope(x: anytype) [2]@TypeOf(x) {
    const V = @TypeOf(x);
    const e = exp(-@abs(x));
    const q = e / (all(V, 1) + e);
    const s = @select(f32, x < all(V, 0), @mulAdd(V, -e, q, e), all(V, 1) - q);
    return .{ s, @mulAdd(V, -q, q, q) };
}

/// e^-x and 1 / (1 + e^-x) for activations, in half the steps of `sigmoid`: a few units in the last place, 0 below 2^-126.
/// NaN may give a number: it comes out where the result is multiplied by x.
pub inline fn logistic(x: anytype) [2]@TypeOf(x) {
    const V = @TypeOf(x);
    const Bits = @Vector(Lanes(V), u32);
    const ln2: f32 = std.math.ln2;
    // At -128 ln 2 the remainder is 0, so that e^-x is infinite and the result 0; at 87 e^-x is not yet denormal.
    const below = @select(f32, x > all(V, 87), all(V, 87), x);
    const within = @select(f32, below < all(V, -128 * ln2), all(V, -128 * ln2), below);
    const shifted = @mulAdd(V, within, all(V, -std.math.log2e), all(V, rounding));
    const r = @mulAdd(V, shifted - all(V, rounding), all(V, -ln2), -within);
    const value = polynomial(r, &.{ 1, 1, 4.9999993432e-1, 1.6666520400e-1, 4.1668390942e-2, 8.3687449641e-3, 1.3814527343e-3 });
    // 2^n, by adding n to the exponent.
    const e: V = @bitCast(@as(Bits, @bitCast(value)) +% (@as(Bits, @bitCast(shifted)) << @splat(23)));
    return .{ e, all(V, 1) / (all(V, 1) + e) };
}

/// 1 / sqrt(x).
pub inline fn rsqrt(x: anytype) @TypeOf(x) {
    return all(@TypeOf(x), 1) / @sqrt(x);
}

const One = @Vector(1, f32);

pub fn exp1(x: f32) f32 {
    return exp(One{x})[0];
}
pub fn log1(x: f32) f32 {
    return log(One{x})[0];
}
pub fn tanh1(x: f32) f32 {
    return tanh(One{x})[0];
}
pub fn sigmoid1(x: f32) f32 {
    return sigmoid(One{x})[0];
}
