// Signs in to an app that is a page of another origin (pkce.html), in Chromium, and prints what the page says of it, as one JSON object. The environment names the
// browser (CHROMIUM), the page (PAGE), the server (API), the app (CLIENT), and the cookie of who is signed in (SESSION).
import { chromium } from "playwright-core";

const { CHROMIUM, PAGE, API, CLIENT, SESSION } = process.env;
const browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox", "--disable-dev-shm-usage"] });
try {
  const context = await browser.newContext();
  await context.addCookies([{ name: "persql_session", value: SESSION, url: API, httpOnly: true, sameSite: "Lax" }]);
  const page = await context.newPage();
  await page.goto(`${PAGE}?${new URLSearchParams({ api: API, client: CLIENT })}`);
  await page.locator("button[value=allow]").click();
  const verdict = page.locator("#verdict:not(:empty)");
  await verdict.waitFor();
  const seen = JSON.parse(await verdict.innerText());
  seen.framed = await Promise.all(page.frames().slice(1).map((f) => f.locator("body").innerText().catch(() => "")));
  // A form of the page, with the user's cookie: the two are of one site, as ports don't count, yet of two origins.
  await page.evaluate((action) => {
    document.body.innerHTML = `<form method="post" action="${action}"><input name="action" value="disconnect"><input name="app" value="x"><button>win</button></form>`;
  }, API + "/account/apps");
  const [answer] = await Promise.all([page.waitForResponse((r) => r.url() === API + "/account/apps"), page.locator("button").click()]);
  seen.form = answer.status();
  console.log(JSON.stringify(seen));
} finally {
  await browser.close();
}
