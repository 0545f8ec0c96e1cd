// Handwriting without a download: digits drawn with shaky strokes, and a network that reads them. The training step is
// captured once and replayed as one native job. Run: `npx bun examples/digits.ts`; read next: docs/tensors.md.
import { capture, functional as F, manualSeed, nn, noGrad, optim, rand, schedules, tensor } from "egg";

const size = 16;
/** Strokes of 0 to 9: corners in percent of a square, x to the right and y down. */
const strokes = [
  "50 10 24 25 20 65 50 90 78 68 78 30 50 10", "35 25 55 10 55 90", "20 25 45 10 75 20 70 45 20 88 82 88", "22 15 70 12 50 45 78 65 60 88 20 85", "65 90 65 10 18 62 85 62",
  "78 12 30 12 25 45 65 42 78 65 60 88 20 85", "72 12 35 35 22 70 45 90 75 75 65 52 25 62", "18 12 80 12 42 90", "50 48 25 30 50 10 75 30 50 48 22 70 50 90 78 70 50 48",
  "75 38 50 50 25 35 45 10 75 18 75 38 62 90",
].map((text) => text.split(" ").map((percent) => Number(percent) / 100 - 0.5));

/** Draws i % 10 for each i: corners move; the whole is turned, stretched and shifted; the pen varies; the paper is speckled. */
function drawings(count: number, seed: number): { images: Float32Array; digits: Int32Array } {
  const random = rand([count, 300], { seed }).toArray();
  const images = new Float32Array(count * size * size);
  for (let i = 0; i < count; i++) {
    let drawn = i * 300;
    const within = (bound: number): number => bound * (2 * random[drawn++]! - 1);
    const [turn, wide, tall, right, down, pen] = [within(0.25), 0.85 + within(0.15), 0.85 + within(0.15), within(0.08), within(0.08), 0.055 + within(0.015)];
    const [sin, cos] = [Math.sin(turn), Math.cos(turn)];
    const moved = strokes[i % 10]!.map((at, c) => (c % 2 === 0 ? wide : tall) * (at + within(0.035)));
    const corners = moved.map((at, c) => (c % 2 === 0 ? at * cos - moved[c + 1]! * sin + right : at * cos + moved[c - 1]! * sin + down));
    for (let p = 0; p < size * size; p++) {
      const [x, y] = [((p % size) + 0.5) / size - 0.5, (Math.floor(p / size) + 0.5) / size - 0.5];
      let nearest = Infinity;
      for (let c = 0; c + 3 < corners.length; c += 2) {
        const [ax, ay, dx, dy] = [corners[c]!, corners[c + 1]!, corners[c + 2]! - corners[c]!, corners[c + 3]! - corners[c + 1]!];
        const along = Math.max(0, Math.min(1, ((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy)));
        nearest = Math.min(nearest, (x - ax - along * dx) ** 2 + (y - ay - along * dy) ** 2);
      }
      images[i * size * size + p] = Math.exp(-nearest / pen ** 2) + within(0.15);
    }
  }
  return { images, digits: Int32Array.from({ length: count }, (_, i) => i % 10) };
}

manualSeed(1);
const [batch, epochs, pixels, training, held] = [50, 8, size * size, drawings(4000, 1), drawings(1000, 2)];
const model = new nn.Sequential(new nn.Linear(pixels, 64, { activation: "relu" }), new nn.Dropout(0.1), new nn.Linear(64, 10));
const optimizer = new optim.AdamW(model.parameters());
const step = capture({ x: { shape: [batch, pixels] }, y: { shape: [batch], dtype: "i32" } }, ({ x, y }) => {
  optimizer.zeroGrad();
  const loss = F.crossEntropy(model.forward(x), y);
  loss.backward();
  optimizer.step();
  return loss;
});
for (let i = 0; i < (epochs * 4000) / batch; i++) {
  const at = (i * batch) % 4000;
  optimizer.lr = schedules.cosine(i, { lr: 0.003, warmup: 20, total: (epochs * 4000) / batch });
  await step.run({ x: training.images.subarray(at * pixels, (at + batch) * pixels), y: training.digits.subarray(at, at + batch) });
}
model.eval();
const guesses = noGrad(() => model.forward(tensor(held.images, { shape: [1000, pixels] })).argmax(1).toArray());
console.log(`loss ${step.outputs.item().toFixed(4)}; ${(guesses.filter((guess, i) => guess === held.digits[i]).length / 10).toFixed(1)} % of 1000 new drawings read`);
