// Opens a page in Chromium and lets it call the data plane of another origin with a bearer. Prints one JSON object
// with what the page could see. The environment names the browser (CHROMIUM), the page (PAGE), the server (API) and
// the token (TOKEN).
import { chromium } from "playwright-core";

const { CHROMIUM, PAGE, API, TOKEN } = process.env;
const browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox", "--disable-dev-shm-usage"] });
try {
  const page = await browser.newPage();
  await page.goto(PAGE);
  const seen = await page.evaluate(
    async ({ api, token }) => {
      const call = async (path, init = {}) => {
        const response = await fetch(api + path, init);
        const headers = {};
        for (const name of ["x-request-id", "retry-after", "idempotency-replayed", "plan-replayed", "www-authenticate", "server"]) {
          headers[name] = response.headers.get(name);
        }
        return { status: response.status, headers, body: await response.json() };
      };
      const json = { authorization: `Bearer ${token}`, "content-type": "application/json" };
      const query = (sql, params, more = {}) =>
        call("/v1/db/default/browser/query", { method: "POST", headers: { ...json, ...more }, body: JSON.stringify({ sql, params }) });
      const refused = async (path, init) => {
        try {
          await fetch(api + path, init);
          return "answered";
        } catch (e) {
          return e.name;
        }
      };
      const out = { origin: location.origin };
      out.create = await query("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, a)");
      out.insert = await query("INSERT INTO t VALUES(?, ?)", [1, "from a page"], { "idempotency-key": "page", "x-request-id": "chosen-by-the-page" });
      out.replay = await query("INSERT INTO t VALUES(?, ?)", [1, "from a page"], { "idempotency-key": "page" });
      out.plan = await query("INSERT INTO t VALUES(?, ?)", [2, "planned"], { "plan-key": "p", "plan-step": "1" });
      out.planReplay = await query("INSERT INTO t VALUES(?, ?)", [2, "planned"], { "plan-key": "p", "plan-step": "1" });
      out.select = await query("SELECT id, a FROM t ORDER BY id");
      out.broken = await query("SELEC");
      out.describe = await call("/v1/db/default/browser/describe", { method: "PUT", headers: json, body: JSON.stringify({ databaseDescription: "seen" }) });
      out.unauthorized = await call("/v1/me", { headers: { authorization: "Bearer nonsense" } });
      out.remove = await call("/v1/databases/browser", { method: "DELETE", headers: json });
      out.credentials = await refused("/v1/me", { headers: json, credentials: "include" });
      out.version = await refused("/version", {});
      out.metrics = await refused("/metrics", {});
      return out;
    },
    { api: API, token: TOKEN },
  );
  console.log(JSON.stringify(seen));
} finally {
  await browser.close();
}
