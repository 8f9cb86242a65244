// Accepts an invitation in Chromium without JavaScript, by keyboard alone, over plain http under a name that is not this machine's, so
// that the browser sends no Sec-Fetch-Site. Then lets a page of another site try what a form can do with the cookie. Prints one JSON
// object with what was seen. The environment names the browser (CHROMIUM), the server (API), the page of the other site (EVIL), the
// invitation's token (TOKEN), and those of two more (SECOND, THIRD).
import { chromium } from "playwright-core";

const { CHROMIUM, API, EVIL, TOKEN, SECOND, THIRD } = process.env;
const browser = await chromium.launch({
  executablePath: CHROMIUM,
  args: ["--no-sandbox", "--disable-dev-shm-usage", "--host-resolver-rules=MAP *.test 127.0.0.1"],
});
try {
  const out = {};
  const context = await browser.newContext({ javaScriptEnabled: false, viewport: { width: 320, height: 640 }, colorScheme: "dark" });
  const page = await context.newPage();
  const problems = [];
  page.on("console", (message) => problems.push(message.text()));
  const sent = [];
  page.on("request", (request) => sent.push({ method: request.method(), url: request.url(), headers: request.headers() }));
  await page.goto(`${API}/invite/${TOKEN}`);
  out.title = await page.title();
  // JavaScript is off for the page; the browser itself still answers about it.
  out.background = await page.locator("body").evaluate((e) => getComputedStyle(e).backgroundColor);
  out.wider = await page.locator("html").evaluate((e) => e.scrollWidth > e.clientWidth);
  await page.keyboard.press("Tab");
  await page.keyboard.type("ada@example.com");
  await page.keyboard.press("Tab");
  await page.keyboard.type("Ada");
  await page.keyboard.press("Tab");
  await page.keyboard.type("correct horse battery");
  await Promise.all([page.waitForNavigation(), page.keyboard.press("Enter")]);
  out.joined = await page.locator("main").innerText();
  out.posted = sent.filter((r) => r.method === "POST").map((r) => ({ origin: r.headers.origin, site: r.headers["sec-fetch-site"], referer: r.headers.referer }));
  out.cookies = (await context.cookies(API)).map(({ name, httpOnly, sameSite, secure, path }) => ({ name, httpOnly, sameSite, secure, path }));
  // Being signed in.
  await page.goto(`${API}/invite/${SECOND}`);
  await page.keyboard.press("Tab");
  await Promise.all([page.waitForNavigation(), page.keyboard.press("Enter")]);
  out.second = await page.locator("main").innerText();
  out.problems = problems;

  // The same person opens a page of another site, which has forms for the server.
  out.attacks = {};
  for (const [name, action, type, field, value] of [
    ["invitation", `${API}/invite/${THIRD}`, "application/x-www-form-urlencoded", "action", "accept"],
    ["namespace", `${API}/api/namespaces`, "text/plain", '{"slug":"stolen","x":"', '"}'],
    ["sign in", `${API}/api/session`, "text/plain", '{"email":"eve@example.com","password":"correct horse battery","x":"', '"}'],
    ["query", `${API}/api/namespaces/ada/databases/main/query`, "text/plain", '{"sql":"CREATE TABLE stolen(a)","x":"', '"}'],
  ]) {
    const other = await context.newPage();
    await other.goto(`${EVIL}/?${new URLSearchParams({ action, type, field, value })}`);
    const [response] = await Promise.all([other.waitForResponse((r) => r.url() === action), other.locator("button").click()]);
    const headers = await response.request().allHeaders();
    out.attacks[name] = { status: response.status(), cookie: "cookie" in headers };
    await other.close();
  }
  console.log(JSON.stringify(out));
} finally {
  await browser.close();
}
