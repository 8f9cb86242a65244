// Signs up and in by a provider in Chromium: without JavaScript and by keyboard alone, on a phone, in the dark, over plain http; links a second sign-in, sets a password,
// signs out everywhere, and uses a link that resets a password. Looks at every page with axe-core, in both color schemes and at the widths of a phone and a desk. Prints
// one JSON object with what was seen. The environment names the browser (CHROMIUM), the server's origin (API) and where it is (AT), the path of a reset link (RESET), and
// where screenshots go, if anywhere (SHOTS).
import { chromium } from "playwright-core";
import { readFileSync } from "node:fs";

const { CHROMIUM, API, AT, RESET, SHOTS } = process.env;
const axe = readFileSync(new URL("./node_modules/axe-core/axe.min.js", import.meta.url), "utf8");
const browser = await chromium.launch({
  executablePath: CHROMIUM,
  args: ["--no-sandbox", "--disable-dev-shm-usage", `--host-resolver-rules=MAP ${new URL(API).hostname} ${AT}`],
});

// tab presses the key until it is on what is wanted, which must be seen to be on it.
const tab = async (page, wanted) => {
  const passed = [];
  for (let i = 0; i < 40; i++) {
    await page.keyboard.press("Tab");
    const f = await page.evaluate(() => {
      const e = document.activeElement;
      const box = e.getBoundingClientRect();
      return { what: `${e.tagName.toLowerCase()} ${e.name || ""} ${e.value || ""} ${e.innerText?.trim() || ""}`.replace(/\s+/g, " "), outlined: getComputedStyle(e).outlineStyle !== "none", inView: box.bottom > 0 && box.top < innerHeight };
    });
    passed.push(f);
    if (f.what.includes(wanted)) {
      if (!f.outlined || !f.inView) throw new Error(`the keyboard is on ${f.what}, which one doesn't see`);
      return;
    }
  }
  throw new Error(`the keyboard doesn't get to ${wanted}: ${JSON.stringify(passed)}`);
};

const press = (page, key) => Promise.all([page.waitForNavigation(), page.keyboard.press(key)]);

try {
  const out = { problems: [], violations: [], rules: 0 };
  const context = await browser.newContext({ javaScriptEnabled: false, viewport: { width: 390, height: 844 }, colorScheme: "dark" });
  const page = await context.newPage();
  page.on("console", (message) => out.problems.push(message.text()));
  const at = () => page.url().replace(API, "");
  const read = () => page.locator("main").innerText();

  // look looks at a page at every width and in every light.
  const look = async (name, path, cookies) => {
    for (const width of [390, 1280]) {
      for (const colorScheme of ["light", "dark"]) {
        if (!SHOTS && (width === 390) !== (colorScheme === "light")) continue; // each width and each scheme once: that takes half the time
        // axe-core is a script, so here scripts are on; the pages have none.
        const c = await browser.newContext({ viewport: { width, height: 844 }, colorScheme });
        await c.addCookies(cookies);
        const p = await c.newPage();
        await p.goto(API + path);
        if (SHOTS) await p.screenshot({ path: `${SHOTS}/signin-${name}-${width}-${colorScheme}.png`, fullPage: true });
        if (await p.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth)) out.violations.push(`${name} ${width}: scrolls sideways`);
        await p.evaluate(axe);
        const result = await p.evaluate(() => globalThis.axe.run());
        out.rules = Math.max(out.rules, result.passes.length);
        for (const v of result.violations) out.violations.push(`${name} ${width} ${colorScheme}: ${v.impact} ${v.id} ${v.nodes.map((n) => n.html.slice(0, 120)).join(" | ")}`);
        await c.close();
      }
    }
  };

  await page.goto(API + "/account");
  out.firstAt = at();
  await tab(page, "Continue with Example ID");
  await press(page, "Enter");
  out.confirmAt = at();
  out.confirm = await read();
  await look("confirm-create", "/login/confirm", await context.cookies(API));
  await tab(page, "create");
  await press(page, "Enter");
  out.madeAt = at();
  out.made = await read();

  await tab(page, "Link GitHub");
  await press(page, "Enter");
  out.link = await read();
  await look("confirm-link", "/login/confirm", await context.cookies(API));
  await tab(page, "link Link it");
  await press(page, "Space");
  out.linked = await read();

  await tab(page, "input password");
  await page.keyboard.type("correct horse battery");
  await press(page, "Enter");
  out.withPassword = await read();

  const cookies = await context.cookies(API);
  await look("sign-in", "/login?next=%2Faccount", []);
  await look("sign-up", "/signup", []);
  await look("signed-in", "/login", cookies);
  await look("account", "/account", cookies);
  await look("over", "/login/oidc/callback?state=x&code=y", []);
  await look("reset", RESET, []);
  await look("reset-over", "/reset/prst_none", []);

  await tab(page, "everywhere");
  await press(page, "Enter");
  out.out = await read();
  out.cookies = (await context.cookies(API)).map(({ name }) => name);

  await page.goto(API + RESET);
  await tab(page, "input password");
  await page.keyboard.type("another password");
  await press(page, "Enter");
  out.reset = await read();
  console.log(JSON.stringify(out));
} finally {
  await browser.close();
}
