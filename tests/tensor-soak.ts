// Many tiny training steps, eager and captured, with evaluation in between: prints memory on the way and fails where it grows.
// Not part of the suite but for a short run (examples.test.ts). Run: `npx bun tests/tensor-soak.ts 100000`.
import { capture, functional as F, manualSeed, memory, nn, noGrad, optim, randn, schedules, tensor } from "egg";

const steps = Number(process.argv[2] ?? 100_000);
manualSeed(1);
const model = new nn.Sequential(new nn.Linear(4, 8, { activation: "gelu" }), new nn.Dropout(0.1), new nn.LayerNorm(8), new nn.Linear(8, 3));
const optimizer = new optim.AdamW(model.parameters(), { clip: 1 });
const labels = Int32Array.from({ length: 6 }, (_, i) => i % 3);
const program = capture({ x: { shape: [6, 4] }, y: { shape: [6], dtype: "i32" } }, ({ x, y }) => {
  optimizer.zeroGrad();
  const loss = F.crossEntropy(model.forward(x), y);
  loss.backward();
  optimizer.step();
  return loss;
});

const resident = (): number => {
  Bun.gc(true);
  return process.memoryUsage.rss();
};
const begun = performance.now();
let first: { resident: number; native: string } | null = null;
for (let step = 0; step < steps; step++) {
  const data = randn([6, 4], { seed: step });
  optimizer.lr = schedules.inverseSqrt(step, { lr: 1e-3, warmup: 100 });
  if (step % 10 === 9) {
    await program.run({ x: data.toArray() as Float32Array, y: labels });
  } else {
    optimizer.zeroGrad();
    const loss = F.crossEntropy(model.train().forward(data), tensor(labels));
    loss.backward();
    optimizer.step();
    if (!Number.isFinite(loss.item())) throw new Error(`step ${step}: the loss is ${loss.item()}`);
  }
  if (step % 7 === 0) noGrad(() => void model.eval().forward(data).softmax().toArray());
  if ((step + 1) % Math.max(1, Math.floor(steps / 10)) !== 0) continue;
  const now = { resident: resident(), native: JSON.stringify(memory()) };
  console.log(`step ${step + 1}: ${(now.resident / 1e6).toFixed(1)} MB resident, native ${now.native}, ${(((performance.now() - begun) * 1000) / (step + 1)).toFixed(0)} us a step`);
  first ??= now;
  if (now.native !== first.native || now.resident > first.resident + 30e6) throw new Error(`memory grew from ${first.resident} and ${first.native}`);
}
console.log(`no growth in ${steps} steps`);
