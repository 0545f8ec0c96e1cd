// A headless Chromium, driven through its DevTools protocol over a WebSocket. For tests of pages only; no assertions here.
// Not needed to build or to use egg: where no Chromium is installed, those tests say so and pass. EGG_CHROMIUM names another one.
// Read next: watch.test.ts.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** The browser's executable; null where there is none. */
export function findChromium(): string | null {
  const names = [process.env["EGG_CHROMIUM"] ?? "", "chromium", "chromium-browser", "google-chrome", "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"];
  return names.map((name) => (name === "" ? null : Bun.which(name))).find((found) => found !== null) ?? null;
}

export interface Page {
  /** The value of an expression in the page, awaited, as JSON carries it. Throws what it throws. */
  evaluate<T = any>(expression: string): Promise<T>;
  /** Waits until an expression is true in the page. */
  until(what: string, expression: string, seconds?: number): Promise<void>;
  /** A key press that the page cannot tell from a person's: "ArrowRight", "a". */
  press(key: string): Promise<void>;
  /** PNG of the whole page. */
  screenshot(file: string): Promise<void>;
  /** A protocol command, such as Emulation.setEmulatedMedia. */
  send(method: string, params?: object): Promise<any>;
  /** Uncaught errors, and errors on the console (also those that the browser reports, such as a refused script). */
  readonly errors: string[];
  /** Every address that the page asked for. */
  readonly requests: string[];
}

export interface Browser {
  open(address: string): Promise<Page>;
  close(): Promise<void>;
}

/** Starts the browser with a profile of its own. */
export async function startBrowser(executable: string): Promise<Browser> {
  const profile = mkdtempSync(join(tmpdir(), "egg-browser-"));
  const flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions", "--window-size=1280,1000", "--remote-debugging-port=0", `--user-data-dir=${profile}`];
  const child = Bun.spawn([executable, ...flags, "about:blank"], { stdin: "ignore", stdout: "ignore", stderr: "pipe" });
  let address: string | undefined;
  let said = "";
  const decoder = new TextDecoder();
  const reader = child.stderr.getReader();
  while (address === undefined) {
    const { value, done } = await reader.read();
    if (done) throw new Error(`${executable} did not start:\n${said}`);
    said += decoder.decode(value, { stream: true });
    address = /DevTools listening on (ws:\S+)/.exec(said)?.[1];
  }
  void (async () => {
    while (!(await reader.read()).done); // else the pipe fills up
  })();
  const socket = new WebSocket(address);
  await new Promise<void>((resolve, reject) => {
    socket.onopen = () => resolve();
    socket.onerror = () => reject(new Error(`no connection to ${address}`));
  });
  const waiting = new Map<number, { resolve: (result: any) => void; reject: (error: Error) => void; method: string }>();
  const listeners = new Map<string, (method: string, params: any) => void>();
  let last = 0;
  socket.onmessage = ({ data }) => {
    const { id, result, error, method, params, sessionId } = JSON.parse(String(data));
    if (id === undefined) return listeners.get(sessionId)?.(method, params);
    const call = waiting.get(id)!;
    waiting.delete(id);
    error === undefined ? call.resolve(result) : call.reject(new Error(`${call.method}: ${error.message}`));
  };
  const send = (method: string, params: object = {}, sessionId?: string): Promise<any> =>
    new Promise((resolve, reject) => {
      waiting.set(++last, { resolve, reject, method });
      socket.send(JSON.stringify({ id: last, method, params, sessionId }));
    });
  return {
    async open(target) {
      const { targetId } = await send("Target.createTarget", { url: "about:blank" });
      const { sessionId } = await send("Target.attachToTarget", { targetId, flatten: true });
      const errors: string[] = [];
      const requests: string[] = [];
      listeners.set(sessionId, (method, params) => {
        if (method === "Runtime.exceptionThrown") errors.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
        if (method === "Runtime.consoleAPICalled" && ["error", "warning", "assert"].includes(params.type)) errors.push(params.args.map((arg: any) => arg.value ?? arg.description).join(" "));
        if (method === "Log.entryAdded" && ["error", "warning"].includes(params.entry.level)) errors.push(`${params.entry.text} ${params.entry.url ?? ""}`);
        if (method === "Network.requestWillBeSent") requests.push(params.request.url);
      });
      const command = (method: string, params?: object) => send(method, params, sessionId);
      for (const domain of ["Runtime", "Log", "Network", "Page"]) await command(`${domain}.enable`);
      const page: Page = {
        errors,
        requests,
        send: command,
        async evaluate(expression) {
          const { result, exceptionDetails } = await command("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true });
          if (exceptionDetails !== undefined) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
          return result.value;
        },
        async until(what, expression, seconds = 60) {
          const deadline = performance.now() + seconds * 1000;
          while (!(await page.evaluate(expression))) {
            if (performance.now() > deadline) throw new Error(`waited ${seconds} s for ${what}; errors: ${errors.join("; ")}`);
            await Bun.sleep(20);
          }
        },
        async press(key) {
          const events = ["keyDown", "keyUp"].map((type) => ({ type, key, ...(key.length === 1 && type === "keyDown" ? { text: key } : {}) }));
          await Promise.all(events.map((event) => command("Input.dispatchKeyEvent", event))); // sent at once, so that presses can follow each other unawaited
        },
        async screenshot(file) {
          const { data } = await command("Page.captureScreenshot", { format: "png", captureBeyondViewport: true });
          await Bun.write(file, Buffer.from(data, "base64"));
        },
      };
      await command("Page.navigate", { url: target });
      await page.until("the page", `location.href === ${JSON.stringify(target)} && document.readyState === "complete"`);
      return page;
    },
    async close() {
      await send("Browser.close").catch(() => {});
      await Promise.race([child.exited, Bun.sleep(5000)]);
      if (child.exitCode === null) child.kill("SIGKILL");
      await child.exited;
      rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}
