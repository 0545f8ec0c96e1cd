// Three spirals wound into each other: points in the plane, told apart by a small network, with a learning rate that warms up
// and decays, and weight decay. Not captured, for clarity: examples/digits.ts shows that. Run: `npx bun examples/spiral.ts`.
import { functional as F, manualSeed, nn, noGrad, optim, randn, schedules, tensor, type Tensor } from "egg";

const arms = 3;

/** Points along the arms, a little off them. */
function spirals(count: number, seed: number): { x: Tensor; y: Tensor } {
  const off = randn([count], { seed }).toArray();
  const points = Array.from({ length: count }, (_, i) => {
    const radius = 0.1 + (0.9 * Math.floor(i / arms)) / (count / arms);
    const angle = 5 * radius + (2 * Math.PI * (i % arms)) / arms + 0.08 * off[i]!;
    return [radius * Math.cos(angle), radius * Math.sin(angle)];
  });
  return { x: tensor(points), y: tensor(points.map((_, i) => i % arms), { dtype: "i32" }) };
}

manualSeed(1);
const model = new nn.Sequential(
  new nn.Linear(2, 32, { activation: "gelu" }),
  new nn.Linear(32, 32, { activation: "gelu" }),
  new nn.Linear(32, arms),
);
const optimizer = new optim.AdamW(model.parameters(), { weightDecay: 0.01, clip: 1 });
const { x, y } = spirals(300, 1);
const steps = 400;
for (let step = 0; step < steps; step++) {
  optimizer.lr = schedules.cosine(step, { lr: 0.02, warmup: 20, total: steps });
  optimizer.zeroGrad();
  const loss = F.crossEntropy(model.forward(x), y);
  loss.backward();
  optimizer.step();
  if (step % 100 === 99) console.log(`step ${step + 1}: loss ${loss.item().toFixed(4)}, gradient norm ${optimizer.gradientNorm().toFixed(3)}`);
}

const test = spirals(600, 2);
const guesses = noGrad(() => model.forward(test.x).argmax(1).toArray());
const expected = test.y.toArray();
const right = guesses.filter((guess, i) => guess === expected[i]).length / guesses.length;
console.log(`${(100 * right).toFixed(1)} % of 600 new points right`);
