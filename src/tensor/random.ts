// Random numbers in JavaScript: one stream for each seed and number, the same on every machine. What rand, randn and first
// weights are drawn from. Not dropout, whose masks the kernels draw (kernels/float/elementwise.zig). Read next: nn-init.ts.

/** xoshiro128** (Blackman and Vigna 2018) over 32-bit words, its state filled by splitmix32 from seed and stream. */
export function words(seed: number, stream: number): () => number {
  let mixed = seed | 0;
  const mix = (): number => {
    mixed = (mixed + 0x9e3779b9) | 0;
    let x = Math.imul(mixed ^ (mixed >>> 16), 0x21f0aaad);
    x = Math.imul(x ^ (x >>> 15), 0x735a2d97);
    return x ^ (x >>> 15);
  };
  mixed = mix() ^ Math.imul(stream + 1, 0x85ebca6b);
  let [a, b, c, d] = [mix(), mix(), mix(), mix() | 1];
  return () => {
    const five = Math.imul(b, 5);
    const result = Math.imul((five << 7) | (five >>> 25), 9);
    const shifted = b << 9;
    c ^= a;
    d ^= b;
    b ^= c;
    a ^= d;
    c ^= shifted;
    d = (d << 11) | (d >>> 21);
    return result >>> 0;
  };
}

/** Normal, mean 0 and deviation `std` (Box and Muller 1958). */
export function fillNormal(values: Float32Array, next: () => number, std: number): void {
  for (let i = 0; i < values.length; i += 2) {
    const radius = std * Math.sqrt(-2 * Math.log((next() + 0.5) / 2 ** 32));
    const angle = (2 * Math.PI * next()) / 2 ** 32;
    values[i] = radius * Math.cos(angle);
    if (i + 1 < values.length) values[i + 1] = radius * Math.sin(angle);
  }
}
