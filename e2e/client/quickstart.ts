// The README's quick start, with a client whose types are made from the server's OpenAPI document (openapi.d.ts). It
// prints what it saw as one line of JSON, for e2e/client_test.go.
import createClient from "openapi-fetch";
import type { components, paths } from "./openapi.js";

declare const process: { env: Record<string, string | undefined> };

const client = createClient<paths>({
  baseUrl: process.env.API,
  headers: { Authorization: `Bearer ${process.env.TOKEN}` },
});
const path = { namespace: "default", database: "shop" };

// A failure as the document describes it; data is there whenever there is none.
function must<T>(answer: { data?: T; error?: components["schemas"]["Failure"]; response: Response }): T {
  if (answer.data === undefined) {
    throw new Error(`${answer.response.status} ${answer.error?.code}: ${answer.error?.error}`);
  }
  return answer.data;
}

const create = must(await client.POST("/v1/db/{namespace}/{database}/query", {
  params: { path },
  body: { sql: "CREATE TABLE IF NOT EXISTS orders(id INTEGER PRIMARY KEY, item TEXT NOT NULL, price REAL)" },
}));

const insert = () => client.POST("/v1/db/{namespace}/{database}/query", {
  params: { path, header: { "Idempotency-Key": "order-1" } },
  body: { sql: "INSERT INTO orders(item, price) VALUES (?, ?) RETURNING id", params: ["tea", 4.5] },
});
const inserted = must(await insert());
const again = await insert();

const batch = must(await client.POST("/v1/db/{namespace}/{database}/batch", {
  params: { path },
  body: {
    transaction: true,
    statements: [
      { sql: "INSERT INTO orders(item, price) VALUES (:item, :price)", params: { item: "cup", price: 9 } },
      { sql: "SELECT count(*) AS n, total(price) AS sum FROM orders" },
    ],
  },
}));

const description = must(await client.GET("/v1/db/{namespace}/{database}/describe", { params: { path } })).data;
const tables = typeof description === "string" ? [] : description.tables;

const failed = await client.POST("/v1/db/{namespace}/{database}/query", { params: { path }, body: { sql: "SELECT x FROM orders" } });

console.log(JSON.stringify({
  changes: create.data.changes,
  id: inserted.data.rows[0]?.[0],
  sameId: must(again).data.rows[0]?.[0],
  replayed: again.response.headers.get("Idempotency-Replayed"),
  totals: batch.data[1]?.rows[0],
  statements: batch.meta.statementCount,
  columns: tables[0]?.columns.map((c) => c.name),
  rowCount: tables[0]?.rowCount,
  code: failed.error?.code,
  column: failed.error?.errorDetail?.column,
}));
