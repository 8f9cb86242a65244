// Lets a person make an account, sign in to apps with it, say yes and no to them, and disconnect one: in Chromium, without JavaScript, by keyboard alone, on a
// phone, over plain http under a name that is not this machine's, so that the browser sends no Sec-Fetch-Site. Then looks at every page with axe-core, in both
// color schemes and at the widths of a phone and a desk. Prints one JSON object with what was seen. The environment names the browser (CHROMIUM), the server
// (API), the links of apps (LINKS, a JSON object of paths), who makes an account (EMAIL, PASSWORD), and where screenshots go, if anywhere (SHOTS).
import { chromium } from "playwright-core";
import { readFileSync } from "node:fs";

const { CHROMIUM, API, EMAIL, PASSWORD, SHOTS } = process.env;
const LINKS = JSON.parse(process.env.LINKS);
const axe = readFileSync(new URL("./node_modules/axe-core/axe.min.js", import.meta.url), "utf8");
const browser = await chromium.launch({
  executablePath: CHROMIUM,
  // The app's certificate is a test's own.
  args: ["--no-sandbox", "--disable-dev-shm-usage", "--ignore-certificate-errors", "--host-resolver-rules=MAP *.test 127.0.0.1"],
});

try {
  const out = { problems: [], stops: [], wider: [], pages: {}, posted: [] };
  const context = await browser.newContext({ javaScriptEnabled: false, viewport: { width: 390, height: 844 }, colorScheme: "dark" });
  let page;
  const another = async () => {
    page = await context.newPage();
    page.on("console", (message) => out.problems.push(message.text()));
    page.on("request", (r) => r.method() === "POST" && out.posted.push({ path: new URL(r.url()).pathname, origin: r.headers().origin, site: r.headers()["sec-fetch-site"] ?? "" }));
  };
  await another();

  // tab presses the key until it is on what is wanted: a name, a value or a text.
  const tab = async (want) => {
    const passed = [];
    for (let i = 0; i < 40; i++) {
      await page.keyboard.press("Tab");
      const f = await page.evaluate(() => {
        const e = document.activeElement;
        const box = e.getBoundingClientRect();
        const style = getComputedStyle(e);
        return { what: [e.name, e.value, e.innerText?.trim()], outlined: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2, inView: box.bottom > 0 && box.top < innerHeight };
      });
      passed.push(f);
      if (f.what.includes(want)) {
        out.stops.push(...passed);
        return;
      }
    }
    throw new Error(`the keyboard doesn't get to ${want}: ${JSON.stringify(passed)}`);
  };
  const press = (key) => Promise.all([page.waitForNavigation(), page.keyboard.press(key)]);
  const go = async (want, key = "Enter") => {
    await tab(want);
    await press(key);
  };
  const fill = async (name, text) => {
    await tab(name);
    await page.keyboard.type(text);
  };
  // at keeps what a page says, and where it is.
  const at = async (name) => {
    const url = page.url();
    out.pages[name] = { at: url.startsWith(API) ? new URL(url).pathname : url, text: url.startsWith("chrome-error:") ? "" : await page.locator("body").innerText() };
    if (await page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth)) out.wider.push(name);
  };
  const opens = async (link, name) => {
    await page.goto(API + link);
    await at(name);
  };

  // An app's link leads to the sign-in, from there to a new account, and on to what the app asks.
  await opens(LINKS.confidential, "sign-in");
  await go("Make one");
  await at("sign-up");
  await fill("email", EMAIL);
  await fill("name", "Ada");
  await fill("password", "short");
  await tab("Make the account");
  await page.keyboard.press("Enter"); // the browser itself says that it is too short
  await page.goto(page.url());
  await fill("email", EMAIL);
  await fill("name", "Ada");
  await fill("password", PASSWORD);
  await press("Enter");
  await at("consent");
  await go("allow");
  await at("allowed");
  // Agreed to once is enough for an app that can prove who it is.
  await opens(LINKS.confidential, "remembered");

  // No is an answer too; here of another app, whose program listens on this machine.
  await opens(LINKS.loopback, "consent-loopback");
  await go("deny", "Space");
  await at("denied");
  await opens(LINKS.wrong, "wrong");
  await opens(LINKS.unknown, "unknown");

  // Signing in, at first wrongly.
  await page.goto(API + "/login");
  await go("Sign out");
  await at("signed-out");
  await page.goto(API + LINKS.database);
  await fill("email", EMAIL);
  await fill("password", "not the password");
  await press("Enter");
  await at("refused");
  await fill("password", PASSWORD);
  await press("Enter");
  await at("consent-database");
  await go("allow");
  await at("allowed-database");
  // Where an app asks for a namespace, one is picked.
  await opens(LINKS.mcp, "consent-namespace");
  await tab("namespace");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("ArrowUp");
  out.picked = await page.locator("label:has(:checked)").innerText();
  await go("allow");
  await at("allowed-namespace");

  // An app of this machine with a scheme of its own: there is no such app here, so the browser stays; but it is sent there.
  await page.goto(API + LINKS.scheme);
  await at("consent-scheme");
  await tab("allow");
  const [answer] = await Promise.all([page.waitForResponse((r) => new URL(r.url()).pathname === "/oauth/consent"), page.keyboard.press("Enter")]);
  out.scheme = { status: answer.status(), to: (await answer.headerValue("location")) ?? "" };

  // The keyboard of that page is with the browser's question now.
  await another();
  // What is connected can be ended, and its tokens end at once.
  await opens("/account/apps", "apps");
  const code = new URL(out.pages["allowed-database"].at).searchParams.get("code");
  const direct = API.replace("sql.test", "127.0.0.1");
  const form = new URLSearchParams({ ...LINKS.exchange, code });
  const token = await (await fetch(direct + "/oauth/token", { method: "POST", body: form })).json();
  const works = async () => (await fetch(`${direct}/v1/db/${token.database}/query`, { method: "POST", headers: { authorization: `Bearer ${token.access_token}`, "content-type": "application/json" }, body: '{"sql":"SELECT 1"}' })).status;
  out.before = await works();
  const disconnect = page.locator("section", { hasText: "Notes" }).locator("button");
  out.button = await disconnect.evaluate((b) => document.getElementById(b.getAttribute("aria-describedby")).innerText);
  const cookies = await context.cookies(API);
  out.violations = [];
  // Every page at every width and in every light, before the app is gone.
  for (const [name, path, signedIn] of [
    ["sign-in", "/login?next=" + encodeURIComponent(LINKS.database), false],
    ["sign-up", "/signup?next=" + encodeURIComponent(LINKS.database), false],
    ["account", "/login", true],
    ["consent", LINKS.confidential + "&prompt=consent", true],
    ["consent-loopback", LINKS.loopback, true],
    ["consent-database", LINKS.database, true],
    ["consent-namespace", LINKS.mcp, true],
    ["apps", "/account/apps", true],
    ["wrong", LINKS.wrong, true],
  ]) {
    for (const width of [390, 1280]) {
      for (const colorScheme of ["light", "dark"]) {
        if (!SHOTS && (width === 390) !== (colorScheme === "light")) continue; // each width and each scheme once: that takes half the time
        // axe-core is a script, so here scripts are on; the pages have none.
        const c = await browser.newContext({ viewport: { width, height: 844 }, colorScheme });
        if (signedIn) await c.addCookies(cookies);
        const p = await c.newPage();
        await p.goto(API + path);
        if (SHOTS) await p.screenshot({ path: `${SHOTS}/oauth-${name}-${width}-${colorScheme}.png`, fullPage: true });
        if (await p.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth)) out.wider.push(`${name} ${width}`);
        await p.evaluate(axe);
        const result = await p.evaluate(() => globalThis.axe.run());
        out.rules = Math.max(out.rules ?? 0, result.passes.length);
        for (const v of result.violations) out.violations.push(`${name} ${width} ${colorScheme}: ${v.impact} ${v.id} ${v.nodes.map((n) => n.html.slice(0, 120)).join(" | ")}`);
        await c.close();
      }
    }
  }
  await page.goto(API + "/account/apps");
  for (let i = 0; i < 40 && !(await disconnect.evaluate((b) => b === document.activeElement)); i++) await page.keyboard.press("Tab");
  await press("Enter");
  await at("disconnected");
  out.after = await works();
  console.log(JSON.stringify(out));
} finally {
  await browser.close();
}
