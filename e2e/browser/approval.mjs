// Signs in and decides on held writes in Chromium: without JavaScript and by keyboard alone, on a phone, in the dark, over plain http under a name that is
// not this machine's, so that the browser sends no Sec-Fetch-Site. Then looks at every page with axe-core, in both color schemes and at the widths of a phone
// and a desk, and lets a page of another site try what it can. Prints one JSON object with what was seen. The environment names the browser (CHROMIUM),
// the server (API), the page of the other site (EVIL), who signs in (EMAIL, PASSWORD), the paths of four held writes (APPROVE, DENY, KEEP, ODD), and where
// screenshots go, if anywhere (SHOTS).
import { chromium } from "playwright-core";
import { readFileSync } from "node:fs";

const { CHROMIUM, API, EVIL, EMAIL, PASSWORD, APPROVE, DENY, KEEP, ODD, SHOTS } = process.env;
const axe = readFileSync(new URL("./node_modules/axe-core/axe.min.js", import.meta.url), "utf8");
const browser = await chromium.launch({
  executablePath: CHROMIUM,
  args: ["--no-sandbox", "--disable-dev-shm-usage", "--host-resolver-rules=MAP *.test 127.0.0.1"],
});

// focused says what the keyboard is on, and whether one can see that.
const focused = (page) =>
  page.evaluate(() => {
    const e = document.activeElement;
    const box = e.getBoundingClientRect();
    const style = getComputedStyle(e);
    return {
      what: `${e.tagName.toLowerCase()} ${e.getAttribute("aria-label") || e.name || e.innerText?.trim() || ""}`.trim().slice(0, 60),
      value: e.value ?? "",
      outlined: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
      inView: box.bottom > 0 && box.top < innerHeight,
    };
  });

// tab presses the key until it is on something, and tells what it passed.
const tab = async (page, until) => {
  const passed = [];
  for (let i = 0; i < 60; i++) {
    await page.keyboard.press("Tab");
    const f = await focused(page);
    passed.push(f);
    if (until(f)) return passed;
  }
  throw new Error(`the keyboard doesn't get there: ${JSON.stringify(passed)}`);
};

const press = (page, key) => Promise.all([page.waitForNavigation(), page.keyboard.press(key)]);

try {
  const out = { problems: [], posted: [] };
  const context = await browser.newContext({ javaScriptEnabled: false, viewport: { width: 390, height: 844 }, colorScheme: "dark" });
  const page = await context.newPage();
  page.on("console", (message) => out.problems.push(message.text()));
  page.on("request", (r) => r.method() === "POST" && out.posted.push({ path: new URL(r.url()).pathname, origin: r.headers().origin, site: r.headers()["sec-fetch-site"] ?? "" }));
  const wider = () => page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth);

  // A link to a held write leads to the sign-in and back.
  await page.goto(API + APPROVE);
  out.firstAt = page.url().replace(API, "");
  await page.keyboard.press("Tab");
  await page.keyboard.type(EMAIL);
  await page.keyboard.press("Tab");
  await page.keyboard.type("not the password");
  await press(page, "Enter");
  out.refused = await page.locator("[role=alert]").innerText();
  await tab(page, (f) => f.what === "input password");
  await page.keyboard.type(PASSWORD);
  await press(page, "Enter");
  out.thenAt = page.url().replace(API, "");
  out.read = await page.locator("main").innerText();
  out.background = await page.locator("body").evaluate((e) => getComputedStyle(e).backgroundColor);
  out.wider = await wider();

  // Return in the reason is a new line; the button is the next stop but nothing else.
  out.order = await tab(page, (f) => f.what === "textarea reason");
  await page.keyboard.type("Looks right");
  await page.keyboard.press("Enter");
  await page.keyboard.type("to me");
  out.stillAt = page.url().replace(API, "");
  out.order.push(...(await tab(page, (f) => f.value === "approve")));
  await press(page, "Enter");
  out.approvedAt = page.url().replace(API, "");
  out.approved = await page.locator("main").innerText();
  await page.reload();
  out.reloaded = await page.locator("main").innerText();

  await page.goto(API + DENY);
  await tab(page, (f) => f.value === "deny");
  await press(page, "Space");
  out.denied = await page.locator("main").innerText();

  // Without a number of rows it takes a tick, by keyboard too.
  await page.goto(API + ODD);
  out.odd = await page.locator("main").innerText();
  await tab(page, (f) => f.value === "approve");
  await press(page, "Enter");
  out.unticked = await page.locator("[role=alert]").innerText();
  await tab(page, (f) => f.what === "input unknown");
  await page.keyboard.press("Space");
  out.ticked = await page.locator("[name=unknown]").isChecked();

  // Every page at every width and in every light.
  out.violations = [];
  const cookies = await context.cookies(API);
  for (const [name, path, signedIn] of [
    ["sign-in", "/login?next=" + encodeURIComponent(KEEP), false],
    ["account", "/login", true],
    ["pending", KEEP, true],
    ["odd", ODD, true],
    ["approved", APPROVE, true],
    ["denied", DENY, true],
    ["not-found", KEEP.replace(/[^/]*$/, "appr_none"), true],
  ]) {
    for (const width of [390, 1280]) {
      for (const colorScheme of ["light", "dark"]) {
        if (!SHOTS && (width === 390) !== (colorScheme === "light")) continue; // each width and each scheme once: that takes half the time
        // axe-core is a script, so here scripts are on; the pages have none.
        const c = await browser.newContext({ viewport: { width, height: 844 }, colorScheme });
        if (signedIn) await c.addCookies(cookies);
        const p = await c.newPage();
        await p.goto(API + path);
        if (SHOTS) await p.screenshot({ path: `${SHOTS}/e2e-${name}-${width}-${colorScheme}.png`, fullPage: true });
        if (await p.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth)) out.violations.push(`${name} ${width}: scrolls sideways`);
        await p.evaluate(axe);
        const result = await p.evaluate(() => globalThis.axe.run());
        out.rules = Math.max(out.rules ?? 0, result.passes.length);
        for (const v of result.violations) out.violations.push(`${name} ${width} ${colorScheme}: ${v.impact} ${v.id} ${v.nodes.map((n) => n.html.slice(0, 120)).join(" | ")}`);
        await c.close();
      }
    }
  }

  // The same person opens a page of another site: it has a form for the decision, and would show the page in a frame under something else.
  const other = await context.newPage();
  const attack = new URLSearchParams({ action: API + KEEP, type: "application/x-www-form-urlencoded", field: "decision", value: "approve" });
  await other.goto(`${EVIL}/?${attack}`);
  const [answer] = await Promise.all([other.waitForResponse((r) => r.url() === API + KEEP), other.locator("button").click()]);
  out.attack = answer.status();
  await other.goto(`${EVIL}/?${new URLSearchParams({ frame: API + KEEP })}`);
  await other.waitForLoadState();
  out.framed = await Promise.all(other.frames().slice(1).map((f) => f.locator("body").innerText().catch(() => "")));
  await other.close();
  await page.goto(API + KEEP);
  out.kept = await page.locator("main").innerText();

  // Signing out, by keyboard too.
  await tab(page, (f) => f.what === "button Sign out");
  await press(page, "Enter");
  out.signedOut = await page.locator("main").innerText();
  await page.goto(API + KEEP);
  out.lastAt = page.url().replace(API, "");
  console.log(JSON.stringify(out));
} finally {
  await browser.close();
}
