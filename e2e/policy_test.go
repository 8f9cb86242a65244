package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/persqld/persqld/e2e/harness"
)

// ruled is a schema with a way around a policy for every kind of object; the rows of ann and bob are ruledRows.
var ruled = []any{
	"CREATE TABLE orders(id INTEGER PRIMARY KEY, owner TEXT, secret TEXT, n INTEGER)",
	"CREATE INDEX orders_owner ON orders(owner)",
	"CREATE INDEX orders_n ON orders(n, owner)",
	"CREATE TRIGGER orders_own AFTER UPDATE OF n ON orders WHEN new.n > 100 BEGIN UPDATE orders SET secret = secret || '!' WHERE id = new.id; END",
	"CREATE TABLE docs(id INTEGER PRIMARY KEY, owner TEXT, body TEXT)",
	"CREATE VIRTUAL TABLE docs_fts USING fts5(body, content=docs, content_rowid=id)",
	"CREATE VIRTUAL TABLE docs_vocab USING fts5vocab(docs_fts, row)",
	"CREATE VIRTUAL TABLE copy_fts USING fts5(body)",
	"CREATE TRIGGER docs_copy AFTER INSERT ON docs BEGIN INSERT INTO copy_fts VALUES(new.body); END",
	"CREATE VIRTUAL TABLE pages USING fts5(body)",
	"CREATE TABLE members(usr TEXT, team TEXT)",
	"CREATE TABLE tasks(id INTEGER PRIMARY KEY, team TEXT, t TEXT)",
	"CREATE TABLE free(id INTEGER PRIMARY KEY, x TEXT)",
	"CREATE TABLE trap(id INTEGER PRIMARY KEY, x TEXT)",
	"CREATE TRIGGER trap_peek AFTER INSERT ON trap BEGIN INSERT INTO free(x) SELECT secret FROM orders; END",
	"CREATE TABLE gun(id INTEGER PRIMARY KEY, x TEXT)",
	"CREATE TRIGGER gun_fire AFTER INSERT ON gun BEGIN DELETE FROM orders; END",
	"CREATE TABLE kids(id INTEGER PRIMARY KEY, ord INTEGER REFERENCES orders(id) ON DELETE CASCADE)",
	"CREATE TABLE keys(k TEXT PRIMARY KEY, owner TEXT, v INTEGER) WITHOUT ROWID",
	"CREATE TABLE conf(id INTEGER PRIMARY KEY ON CONFLICT REPLACE, owner TEXT)",
	"CREATE TABLE odd(rowid TEXT, id INTEGER PRIMARY KEY, owner TEXT)",
	"CREATE TABLE tags(id INTEGER PRIMARY KEY, tag TEXT)",
	"CREATE TABLE counted(id INTEGER PRIMARY KEY AUTOINCREMENT)",
	"CREATE VIEW v_orders(a, b) AS SELECT id, secret FROM orders -- all of them",
	"CREATE VIEW v_deep AS SELECT b FROM v_orders",
	"CREATE VIEW v_cte AS WITH z AS (SELECT * FROM orders) SELECT id FROM z",
	"CREATE VIEW v_using AS SELECT x.secret FROM (SELECT 's2' AS secret UNION SELECT 's1') x JOIN orders USING (secret)",
	"CREATE VIEW v_trigger AS WITH orders_own AS (SELECT * FROM main.orders) SELECT * FROM orders_own",
	"CREATE VIEW v_one AS SELECT 1 AS one FROM main.orders",
	"CREATE VIEW v_docs AS SELECT id, body FROM docs",
	"CREATE VIRTUAL TABLE view_fts USING fts5(body, content=v_docs, content_rowid=id)",
	"CREATE TABLE middle(body TEXT)",
	"CREATE TRIGGER docs_middle AFTER INSERT ON docs BEGIN INSERT INTO middle VALUES(new.body); END",
	"CREATE VIRTUAL TABLE far_fts USING fts5(body)",
	"CREATE TRIGGER middle_far AFTER INSERT ON middle BEGIN INSERT INTO far_fts VALUES(new.body); END",
	"CREATE TABLE spy(id INTEGER PRIMARY KEY, x TEXT)",
	"CREATE VIEW tagged AS SELECT 1 AS rowid",
	"CREATE TRIGGER spy_peek AFTER INSERT ON spy BEGIN UPDATE spy SET x = (SELECT count(*) FROM (SELECT 's2' AS secret) y JOIN orders USING (secret)) WHERE id = new.id; END",
	"CREATE TABLE mails(id INTEGER PRIMARY KEY, owner TEXT, mail TEXT UNIQUE)",
	"CREATE TABLE cased(k TEXT COLLATE NOCASE, owner TEXT, v INTEGER, PRIMARY KEY (k COLLATE BINARY)) WITHOUT ROWID",
	"CREATE TABLE said(id INTEGER PRIMARY KEY, owner TEXT, status TEXT)",
	"CREATE VIEW v_main AS SELECT * FROM main.orders",
	"CREATE VIEW v_write AS SELECT id FROM orders",
	"CREATE TRIGGER v_write_ins INSTEAD OF INSERT ON v_write BEGIN INSERT INTO orders(id, owner) VALUES(new.id, 'bob'); END",
	"CREATE TRIGGER v_write_upd INSTEAD OF UPDATE ON v_write BEGIN UPDATE free SET x = new.id; END",
}

var ruledRows = []any{
	"DELETE FROM kids", "DELETE FROM orders", "DELETE FROM docs", "DELETE FROM members", "DELETE FROM tasks", "DELETE FROM free", "DELETE FROM trap", "DELETE FROM gun", "DELETE FROM keys", "DELETE FROM conf",
	"DELETE FROM odd", "DELETE FROM tags", "DELETE FROM copy_fts",
	"INSERT INTO orders VALUES(1, 'ann', 's1', 5), (2, 'bob', 's2', 7), (3, 'ann', 's3', 9), (4, 'bob', '{bad', -9223372036854775808)",
	"INSERT INTO docs VALUES(1, 'ann', 'annword'), (2, 'bob', 'bobword')",
	"INSERT INTO docs_fts(docs_fts) VALUES('rebuild')",
	"INSERT INTO members VALUES('ann', 'red'), ('bob', 'blue')",
	"INSERT INTO tasks VALUES(1, 'red', 'r'), (2, 'blue', 'b')",
	"INSERT INTO free VALUES(1, 'f')",
	"INSERT INTO kids VALUES(1, 1), (2, 2)",
	"INSERT INTO keys VALUES('a', 'ann', 1), ('b', 'bob', 2)",
	"INSERT INTO conf VALUES(1, 'ann'), (2, 'bob')",
	"INSERT INTO odd VALUES('x', 1, 'ann'), ('y', 2, 'bob')",
	"DELETE FROM spy", "DELETE FROM mails", "DELETE FROM cased", "DELETE FROM said", "DELETE FROM middle", "DELETE FROM far_fts",
	"INSERT INTO mails VALUES(1, 'ann', 'a@x'), (2, 'bob', 'b@x')",
	"INSERT INTO cased VALUES('a', 'ann', 1), ('A', 'bob', 2)",
	"INSERT INTO said VALUES(1, 'ann', 'public'), (2, 'bob', 'private')",
	"INSERT INTO tags VALUES(1, 'red'), (2, 'blue'), (3, 'big')",
}

// contentOfRuled is what bob has, and what nobody may have changed.
const bobsRows = `SELECT json_array((SELECT json_group_array(json_array(id, owner, secret, n)) FROM orders WHERE owner = 'bob'), (SELECT json_group_array(json_array(k, v)) FROM keys WHERE owner = 'bob'),
	(SELECT json_group_array(json_array(id, mail)) FROM mails WHERE owner = 'bob'), (SELECT json_group_array(json_array(k, v)) FROM cased WHERE owner = 'bob'),
	(SELECT json_group_array(id) FROM conf WHERE owner = 'bob'), (SELECT json_group_array(json_array(rowid, id)) FROM odd WHERE owner = 'bob'))`

var every = []string{"select", "insert", "update", "delete"}

// rules are the policies of ruled.
var rules = []body{
	{"name": "own orders", "tableName": "orders", "expression": "owner = :auth_user", "appliesTo": every},
	{"name": "own docs", "tableName": "docs", "expression": "docs.owner = :auth_user"},
	{"name": "own teams", "tableName": "members", "expression": "usr = :auth_user"},
	{"name": "tasks of own teams", "tableName": "tasks", "expression": "team IN (SELECT team FROM members) OR team IN (SELECT value FROM json_each(:auth_teams))"},
	{"name": "own keys", "tableName": "keys", "expression": "owner = :auth_user", "appliesTo": every},
	{"name": "own conf", "tableName": "conf", "expression": "owner = :auth_user", "appliesTo": every},
	{"name": "own odd", "tableName": "odd", "expression": "owner = :auth_user", "appliesTo": every},
	{"name": "short tags", "tableName": "tags", "expression": "length(tag) < :auth_most", "appliesTo": []string{"select", "insert"}},
	{"name": "no such tag", "tableName": "tags", "expression": "tag <> 'blue'"},
	{"name": "own mails", "tableName": "mails", "expression": "owner = :auth_user", "appliesTo": every},
	{"name": "own cased", "tableName": "cased", "expression": "\"owner\" = :auth_user", "appliesTo": every},
	{"name": "public", "tableName": "said", "expression": "status = 'public'", "appliesTo": every},
	{"name": "switched off", "tableName": "free", "expression": "0", "enabled": false},
}

var annsClaims = body{"user": "ann", "most": 4, "teams": []string{"none"}}

// bounds say of each statement what ann gets: rows as JSON, "=n" for n changes, "refused" for policy_not_allowed, else the code of the failure.
// What is hers are orders 1 and 3, doc 1, team and task red, key a, conf 1, odd 1 and tag red.
var bounds = []struct{ sql, want string }{
	// Every position in which a table is read.
	{"SELECT id FROM orders", "[[1],[3]]"},
	{"SELECT * FROM Orders", `[[1,"ann","s1",5],[3,"ann","s3",9]]`},
	{`SELECT "orders".id FROM "ORDERS"`, "[[1],[3]]"},
	{"SELECT id FROM [orders] ORDER BY n DESC", "[[3],[1]]"},
	{"SELECT id FROM `orders` WHERE id = 2", "[]"},
	{"SELECT id FROM 'orders' WHERE owner = 'bob'", "[]"},
	{"SELECT count(*) FROM orders", "[[2]]"},
	{"SELECT count(secret), min(n), max(n), sum(n), total(n) FROM orders", "[[2,5,9,14,14.0]]"},
	{"SELECT group_concat(secret) FROM orders", `[["s1,s3"]]`},
	{"SELECT owner, count(*) FROM orders GROUP BY owner", `[["ann",2]]`},
	{"SELECT id, sum(n) OVER (ORDER BY id), count(*) OVER () FROM orders", "[[1,5,2],[3,14,2]]"},
	{"SELECT row_number() OVER (ORDER BY n) FROM orders", "[[1],[2]]"},
	{"SELECT a.id, b.id FROM orders a JOIN orders b ON a.id <> b.id", "[[1,3],[3,1]]"},
	{"SELECT f.x, o.id FROM free f LEFT JOIN orders o ON o.id = 2", `[["f",null]]`},
	{"SELECT o.id FROM free f, orders o", "[[1],[3]]"},
	{"SELECT k.id, o.secret FROM kids k LEFT JOIN orders o ON o.id = k.ord", `[[1,"s1"],[2,null]]`},
	{"SELECT x FROM free WHERE EXISTS (SELECT 1 FROM orders WHERE owner = 'bob')", "[]"},
	{"SELECT x FROM free WHERE NOT EXISTS (SELECT 1 FROM orders WHERE owner = 'bob')", `[["f"]]`},
	{"SELECT (SELECT secret FROM orders WHERE id = 2)", "[[null]]"},
	{"SELECT (SELECT max(id) FROM orders)", "[[3]]"},
	{"SELECT id FROM free WHERE id IN (SELECT id FROM orders)", "[[1]]"},
	{"SELECT 2 IN (SELECT id FROM orders), 1 IN (SELECT id FROM orders)", "[[0,1]]"},
	{"WITH c(n) AS (VALUES(5), (7), (9), (11)) SELECT c.n FROM c JOIN orders USING (n)", "[[5],[9]]"},
	{"SELECT secret FROM (SELECT 's2' AS secret UNION SELECT 's1') JOIN orders USING (secret)", `[["s1"]]`},
	{"SELECT x.secret FROM (SELECT 's2' AS secret) x NATURAL JOIN orders", "[]"},
	{"SELECT * FROM v_using", `[["s1"]]`},
	{"EXPLAIN QUERY PLAN SELECT x.n FROM (SELECT 7 AS n) x JOIN orders USING (n)", "refused"},
	{"SELECT id FROM orders UNION SELECT id FROM orders", "[[1],[3]]"},
	{"SELECT id FROM kids EXCEPT SELECT id FROM orders", "[[2]]"},
	{"SELECT id FROM free ORDER BY (SELECT count(*) FROM orders)", "[[1]]"},
	{"SELECT id FROM tags LIMIT (SELECT count(*) FROM members)", "[[1]]"},
	{"VALUES((SELECT count(*) FROM orders))", "[[2]]"},
	{"SELECT value FROM json_each((SELECT json_group_array(secret) FROM orders))", `[["s1"],["s3"]]`},
	{"SELECT * FROM (SELECT id FROM (SELECT * FROM orders))", "[[1],[3]]"},
	{"SELECT DISTINCT owner FROM orders", `[["ann"]]`},
	{"SELECT id FROM orders WHERE n BETWEEN 6 AND 8", "[]"},
	{"SELECT CASE WHEN EXISTS (SELECT 1 FROM orders WHERE id = 4) THEN 'there' ELSE 'not' END", `[["not"]]`},
	{"SELECT k FROM keys", `[["a"]]`},
	{"SELECT rowid, id FROM odd", `[["x",1]]`},
	{"SELECT tag FROM tags", `[["red"],["big"]]`},
	{"SELECT t FROM tasks", `[["r"]]`},
	{"SELECT team FROM members", `[["red"]]`},
	{"SELECT t, (SELECT count(*) FROM members) FROM tasks", `[["r",1]]`},
	{"SELECT id FROM docs", "[[1]]"},
	{"SELECT x FROM free", `[["f"]]`},
	// Table expressions.
	{"WITH x AS (SELECT * FROM orders) SELECT id FROM x", "[[1],[3]]"},
	{"WITH x AS MATERIALIZED (SELECT * FROM orders), y AS (SELECT * FROM x) SELECT count(*) FROM y", "[[2]]"},
	{"WITH RECURSIVE r(i) AS (SELECT min(id) FROM orders UNION ALL SELECT i + 1 FROM r WHERE i < 3) SELECT i, (SELECT secret FROM orders WHERE id = i) FROM r", `[[1,"s1"],[2,null],[3,"s3"]]`},
	{"WITH x(id) AS (SELECT id FROM orders) INSERT INTO free SELECT id + 10, id FROM x", "=2"},
	{"/* c */ WITH /* ( */ x AS (SELECT id FROM orders) -- )\n SELECT * FROM x", "[[1],[3]]"},
	{"SELECT * FROM (WITH orders AS (SELECT 7 AS id) SELECT id FROM orders)", "[[7]]"},
	{"WITH orders AS (SELECT 7 AS id) SELECT id FROM orders", "[[7]]"},
	{"WITH orders AS (SELECT 7 AS id) SELECT orders.id, t FROM orders, tasks", "refused"},
	{"WITH members(usr, team) AS (SELECT 'ann', 'blue') SELECT t FROM tasks", "refused"},
	{"WITH 'members' AS (SELECT 'blue' AS team) SELECT t FROM tasks", "refused"},
	{"WITH a AS (SELECT 1), [Members](team, usr) AS NOT MATERIALIZED (SELECT 'blue', 'ann') SELECT t FROM tasks", "refused"},
	{"WITH docs AS (SELECT * FROM docs) SELECT * FROM docs", "sql_error"},
	{"SELECT * FROM (WITH members(team) AS (SELECT 'blue') SELECT t FROM tasks)", `[["r"]]`},
	{"WITH x AS (SELECT * FROM v_orders) SELECT * FROM x", `[[1,"s1"],[3,"s3"]]`},
	{"WITH replace AS (SELECT id FROM orders) SELECT * FROM replace", "[[1],[3]]"},
	{"WITH v_orders AS (SELECT 1) SELECT * FROM orders", "refused"},
	// The schema's name in front.
	{"SELECT * FROM main.orders", "refused"},
	{"SELECT * FROM MAIN . orders", "refused"},
	{`SELECT * FROM "main".orders`, "refused"},
	{"SELECT * FROM [main].orders", "refused"},
	{"SELECT * FROM 'main'.orders", "refused"},
	{"SELECT * FROM `Main`/**/./**/orders", "refused"},
	{"SELECT count(*) FROM main.orders", "refused"},
	{"SELECT id FROM orders WHERE id IN (SELECT id FROM main.orders)", "refused"},
	{"SELECT id FROM orders WHERE 's2' IN main.v_deep", "refused"},
	{"SELECT id FROM orders WHERE 's2' IN v_deep", "[]"},
	{"SELECT (WITH x AS (SELECT * FROM main.orders) SELECT max(secret) FROM x)", "refused"},
	{"UPDATE orders SET secret = (SELECT max(secret) FROM main.orders) WHERE id = 1", "refused"},
	{"DELETE FROM orders WHERE EXISTS (SELECT 1 FROM main.orders WHERE owner = 'bob')", "refused"},
	{"INSERT INTO orders SELECT 9, 'ann', max(secret), 0 FROM main.orders", "refused"},
	{"UPDATE main.orders SET n = 1", "refused"},
	{"SELECT main.orders.id FROM orders", "refused"},
	{"UPDATE orders SET secret = (SELECT group_concat(secret) FROM main \v.orders) WHERE id = 1 RETURNING secret", "refused"},
	{"WITH orders_own AS (SELECT * FROM main \v.orders) SELECT * FROM orders_own", "refused"},
	{"SELECT c.secret FROM (SELECT 's2' AS secret) c JOIN main \v.orders USING (secret), orders o", "refused"},
	{"SELECT * FROM v_trigger", "refused"},
	{"SELECT count(*) FROM v_one", "refused"},
	{"UPDATE orders SET secret = (SELECT count(*) FROM v_one) WHERE id = 1 RETURNING secret", "refused"},
	{"SELECT x FROM main.free", `[["f"]]`},
	{"SELECT temp.orders.id FROM temp.orders", "unknown_table"},
	// Views.
	{"SELECT * FROM v_orders", `[[1,"s1"],[3,"s3"]]`},
	{"SELECT b FROM v_orders WHERE a = 2", "[]"},
	{"SELECT count(*) FROM v_orders", "[[2]]"},
	{"SELECT * FROM v_deep", `[["s1"],["s3"]]`},
	{"SELECT count(*) FROM v_deep", "[[2]]"},
	{"SELECT * FROM v_cte", "[[1],[3]]"},
	{"SELECT * FROM V_DEEP JOIN v_orders", `[["s1",1,"s1"],["s1",3,"s3"],["s3",1,"s1"],["s3",3,"s3"]]`},
	{"SELECT * FROM v_main", "refused"},
	{"SELECT count(*) FROM v_main", "refused"},
	{"SELECT * FROM main.v_orders", "refused"},
	{"SELECT * FROM free WHERE id IN (SELECT a FROM v_orders)", `[[1,"f"]]`},
	{"UPDATE v_write SET id = 5", "refused"},
	{"INSERT INTO v_write VALUES(9)", "refused"},
	// What the file would tell.
	{"PRAGMA page_count", "refused"},
	{"PRAGMA freelist_count", "refused"},
	{"SELECT * FROM pragma_page_count", "refused"},
	{"SELECT * FROM pragma_freelist_count()", "refused"},
	{"PRAGMA integrity_check", "refused"},
	{"PRAGMA integrity_check(free)", "refused"},
	{"PRAGMA quick_check", "refused"},
	{"PRAGMA foreign_key_check", "refused"},
	{"PRAGMA foreign_key_check(kids)", "refused"},
	{"SELECT * FROM pragma_foreign_key_check", "refused"},
	{"SELECT * FROM sqlite_sequence", "refused"},
	{"SELECT (SELECT seq FROM sqlite_sequence)", "refused"},
	{"SELECT sqlite_offset(secret) FROM orders", "refused"},
	{"SELECT sqlite_offset(x) FROM free", "refused"},
	{"SELECT total_changes()", "refused"},
	{"SELECT (SELECT group_concat(owner || status) FROM said) FROM (SELECT 'private' AS public)", `[["annpublic"]]`},
	{"EXPLAIN SELECT * FROM orders", "refused"},
	{"EXPLAIN QUERY PLAN SELECT * FROM orders", "refused"},
	{"EXPLAIN QUERY PLAN SELECT * FROM v_deep", "refused"},
	{"EXPLAIN UPDATE orders SET n = 1", "refused"},
	{"SELECT name FROM pragma_table_info('orders') LIMIT 1", `[["id"]]`},
	{"SELECT count(*) FROM sqlite_schema WHERE name = 'orders'", "[[1]]"},
	{"SELECT * FROM _persql_meta_query_log", "log"},
	{"SELECT _persql_claim('user')", "function_not_allowed"},
	{"SELECT * FROM orders WHERE owner = _persql_claim('other')", "function_not_allowed"},
	// Rowids, and named indexes.
	{"SELECT rowid FROM orders", "refused"},
	{"SELECT _rowid_, id FROM docs", "refused"},
	{"SELECT id FROM orders WHERE oid = 2", "refused"},
	{"SELECT id FROM orders INDEXED BY orders_owner", "refused"},
	{"SELECT id FROM orders NOT INDEXED", "[[1],[3]]"},
	// Virtual tables.
	{"SELECT * FROM docs_fts('bobword')", "refused"},
	{"SELECT rowid FROM docs_fts WHERE docs_fts MATCH 'bobword'", "refused"},
	{"SELECT count(*) FROM docs_fts", "refused"},
	{"SELECT * FROM docs_fts_data", "refused"},
	{"SELECT id FROM docs_fts_docsize", "refused"},
	{"SELECT term FROM docs_vocab", "refused"},
	{"SELECT * FROM copy_fts", "refused"},
	{"SELECT * FROM copy_fts_content", "refused"},
	{"SELECT id FROM docs WHERE id IN (SELECT rowid FROM docs_fts('bobword'))", "refused"},
	{"UPDATE docs SET body = 'x' WHERE id IN (SELECT rowid FROM docs_fts('bobword'))", "refused"},
	{"INSERT INTO free SELECT 5, body FROM copy_fts", "refused"},
	{"SELECT block FROM view_fts_data", "refused"},
	{"SELECT * FROM view_fts", "refused"},
	{"SELECT * FROM far_fts", "refused"},
	{"SELECT * FROM far_fts_content", "refused"},
	{"SELECT * FROM pages", "[]"},
	// Errors on rows that she doesn't see.
	{"SELECT id FROM orders WHERE abs(n) > 0", "[[1],[3]]"},
	{"SELECT id FROM orders WHERE abs(n) > 0 AND owner = 'bob'", "[]"},
	{"SELECT id FROM orders WHERE json_extract(secret, '$') IS NULL AND id = 4", "[]"},
	{"SELECT sum(abs(n)) FROM orders WHERE n < 0", "[[null]]"},
	{"SELECT id FROM orders WHERE abs(n) >= 0 AND n < 6", "[[1]]"},
	{"UPDATE orders SET secret = 'u' WHERE abs(n) > 0", "=2"},
	{"DELETE FROM orders WHERE abs(n) > 100", "=0"},
	{"SELECT json_extract(secret, '$') FROM orders WHERE id = 1", "sql_error"},
	// UPDATE and DELETE, where the policies hold them.
	{"UPDATE orders SET n = n + 1", "=2"},
	{"UPDATE orders SET n = n + 1 WHERE id = 2", "=0"},
	{"UPDATE orders SET n = n + 1 WHERE id = 1 OR id = 2", "=1"},
	{"UPDATE orders SET n = 1 WHERE 1 OR (id = 2) -- )", "=2"},
	{"UPDATE orders AS o SET n = 0 WHERE o.id IN (1, 2)", "=1"},
	{"UPDATE 'orders' SET n = 0", "=2"},
	{"UPDATE orders SET n = 200 WHERE id = 1", "=1"},
	{"UPDATE orders SET n = 0 WHERE secret = 's2'", "=0"},
	{"UPDATE orders SET secret = (SELECT group_concat(secret) FROM orders) WHERE id = 1 RETURNING secret", `[["s1,s3"]]`},
	{"UPDATE orders SET n = f.id FROM free f WHERE f.id < 3", "=2"},
	{"UPDATE orders SET n = p.n FROM orders p WHERE p.id = orders.id + 1", "=0"},
	{"UPDATE orders SET n = 0 RETURNING id", "[[1],[3]]"},
	{"UPDATE orders SET n = 0 WHERE id > 1 RETURNING *", `[[3,"ann","s3",0]]`},
	{"UPDATE orders SET owner = 'bob' WHERE id = 1", "refused"},
	{"UPDATE orders SET owner = NULL", "refused"},
	{"UPDATE OR IGNORE orders SET owner = 'bob'", "refused"},
	{"UPDATE OR REPLACE orders SET id = 2 WHERE id = 1", "refused"},
	{"UPDATE orders SET id = 2 WHERE id = 1", "unique_violation"},
	{"UPDATE keys SET v = 9", "=1"},
	{"UPDATE keys SET v = 9 WHERE k = 'b'", "=0"},
	{"UPDATE odd SET rowid = 'z'", "=1"},
	{"UPDATE orders SET owner = 'ann' FROM (SELECT 1 AS rowid) AS orders", "refused"},
	{"UPDATE orders AS o SET owner = 'ann' FROM free, (SELECT 1 AS rowid) o", "refused"},
	{"UPDATE orders AS o SET owner = 'ann' FROM (free JOIN (SELECT 1 AS rowid) AS O)", "refused"},
	{"UPDATE orders SET owner = 'ann' FROM (SELECT 1 AS rowid) 'orders' RETURNING *", "refused"},
	{"WITH o(rowid) AS (VALUES(1)) UPDATE orders AS o SET owner = 'ann' FROM o", "refused"},
	{"WITH o(rowid) AS (VALUES(1)) UPDATE orders AS 'O' SET owner = 'ann' FROM free, [o] WHERE 1 RETURNING secret", "refused"},
	{"WITH o(rowid) AS (VALUES(1)) UPDATE orders AS o SET owner = 'ann' FROM (free JOIN o)", "refused"},
	{"UPDATE orders AS tagged SET owner = 'ann' FROM tagged", "refused"},
	{"UPDATE orders AS o SET n = p.n FROM orders p WHERE p.id = o.id", "=2"},
	{"UPDATE orders AS n SET n = m.n FROM (SELECT max(n) n, (SELECT 1) AS o FROM orders AS n) m WHERE n.id = 1", "=1"},
	{"UPDATE orders AS o SET owner = 'ann' FROM ((SELECT 1 AS rowid) AS o)", "refused"},
	{"WITH o(rowid) AS (VALUES(1)) UPDATE orders AS o SET owner = 'ann' FROM (SELECT 1 AS x), ((o))", "refused"},
	{"UPDATE orders SET n = p.n FROM orders p WHERE p.id = orders.id", "=2"},
	{"UPDATE cased SET owner = 'ann'", "=1"},
	{"DELETE FROM cased", "=1"},
	{"UPDATE mails SET mail = 'c@x'", "=1"},
	{"DELETE FROM orders", "=2"},
	{"DELETE FROM orders WHERE 1", "=2"},
	{"DELETE FROM orders WHERE owner = 'bob'", "=0"},
	{"DELETE FROM orders WHERE id IN (SELECT id + 1 FROM orders)", "=0"},
	{"DELETE FROM orders AS d WHERE d.id < 3 RETURNING id", "[[1]]"},
	{"WITH x AS (SELECT 2 AS id) DELETE FROM orders WHERE id IN (SELECT id FROM x)", "=0"},
	{"DELETE FROM keys RETURNING k", `[["a"]]`},
	{"DELETE FROM odd", "=1"},
	{"DELETE FROM orders; -- all", "=2"},
	// INSERT.
	{"INSERT INTO orders VALUES(9, 'ann', 's9', 0)", "=1"},
	{"INSERT INTO orders VALUES(9, 'bob', 's9', 0)", "refused"},
	{"INSERT INTO orders(id) VALUES(9)", "refused"},
	{"INSERT INTO orders DEFAULT VALUES", "refused"},
	{"INSERT INTO orders VALUES(8, 'ann', '', 0), (9, 'bob', '', 0)", "refused"},
	{"INSERT INTO orders VALUES(9, 'ann', 's9', 0) RETURNING id, secret", `[[9,"s9"]]`},
	{"INSERT INTO orders AS o VALUES(9, 'ann', 's9', 0) RETURNING id", "[[9]]"},
	{"INSERT INTO orders SELECT id + 10, owner, secret, n FROM orders", "=2"},
	{"INSERT INTO orders VALUES(2, 'ann', '', 0)", "unique_violation"},
	{"INSERT OR IGNORE INTO orders VALUES(2, 'ann', '', 0)", "=0"},
	{"INSERT INTO orders VALUES(2, 'ann', '', 0) ON CONFLICT DO NOTHING", "=0"},
	{"INSERT INTO orders VALUES(2, 'ann', '', 0) ON CONFLICT(id) DO UPDATE SET n = 9", "=0"},
	{"INSERT INTO orders VALUES(2, 'ann', '', 0) ON CONFLICT(id) DO UPDATE SET owner = 'ann' WHERE 1 RETURNING *", "[]"},
	{"INSERT INTO orders VALUES(1, 'ann', '', 0) ON CONFLICT(id) DO UPDATE SET n = 9 WHERE n > 0 RETURNING n", "[[9]]"},
	{"INSERT INTO orders VALUES(1, 'ann', '', 0) ON CONFLICT(id) DO UPDATE SET owner = 'bob'", "refused"},
	{"INSERT INTO orders SELECT 2, 'ann', '', 0 FROM free a JOIN free b ON a.id = b.id WHERE true ON CONFLICT(id) DO UPDATE SET n = 1", "=0"},
	{"INSERT INTO mails AS excluded VALUES(1, 'ann', 'b@x') ON CONFLICT(mail) DO UPDATE SET owner = 'ann' ON CONFLICT(id) DO NOTHING", "refused"},
	{"INSERT INTO mails AS 'Excluded' VALUES(9, 'ann', 'b@x') ON CONFLICT(mail) DO UPDATE SET owner = 'ann' RETURNING *", "refused"},
	{"INSERT INTO mails VALUES(9, 'ann', 'b@x') ON CONFLICT(mail) DO UPDATE SET owner = 'ann' RETURNING *", "[]"},
	{"INSERT INTO mails VALUES(1, 'ann', 'b@x') ON CONFLICT(mail) DO UPDATE SET owner = 'ann' ON CONFLICT(id) DO UPDATE SET mail = 'd@x'", "=0"},
	{"REPLACE INTO orders VALUES(2, 'ann', '', 0)", "refused"},
	{"INSERT OR REPLACE INTO orders VALUES(2, 'ann', '', 0)", "refused"},
	{"INSERT INTO conf VALUES(2, 'ann')", "refused"},
	{"INSERT INTO tags VALUES(9, 'tiny')", "refused"},
	{"INSERT INTO tags VALUES(9, 'abc')", "=1"},
	{"INSERT INTO free SELECT 9, group_concat(secret) FROM orders RETURNING x", `[["s1,s3"]]`},
	{"INSERT INTO free VALUES(9, 'x') RETURNING (SELECT count(*) FROM orders)", "[[2]]"},
	{"INSERT INTO free SELECT id, x FROM free WHERE true ON CONFLICT(id) DO UPDATE SET x = (SELECT count(*) FROM orders) RETURNING x", `[["2"]]`},
	// Where a policy holds select alone, writes are free; they show nothing.
	{"UPDATE docs SET body = 'x'", "=2"},
	{"UPDATE docs SET body = (SELECT group_concat(body) FROM docs) WHERE id = 1", "=1"},
	{"UPDATE docs SET body = 'x' RETURNING body", "refused"},
	{"DELETE FROM docs WHERE id = 2 RETURNING *", "refused"},
	{"INSERT INTO docs VALUES(9, 'bob', 'b') RETURNING id", "refused"},
	{"INSERT INTO docs VALUES(2, 'ann', '') ON CONFLICT(id) DO UPDATE SET owner = 'ann' RETURNING body", "refused"},
	{"INSERT INTO tags VALUES(2, 'x') ON CONFLICT(id) DO UPDATE SET id = 2 RETURNING tag", "refused"},
	{"DELETE FROM docs", "=2"},
	// Triggers, views and keys that write or read on somebody else's behalf.
	{"INSERT INTO trap VALUES(1, '')", "refused"},
	{"INSERT INTO gun VALUES(1, '')", "refused"},
	{"INSERT INTO spy VALUES(1, '')", "refused"},
	{"INSERT INTO kids VALUES(9, 3)", "=1"},
	{"INSERT INTO kids VALUES(9, 77)", "fk_violation"},
	{"DELETE FROM orders WHERE id = 1", "=1"},
	{"DELETE FROM kids", "=2"},
	// The schema.
	{"CREATE TABLE x AS SELECT * FROM orders", "schema"},
	{"CREATE VIEW x AS SELECT * FROM main.orders", "schema"},
	{"CREATE TRIGGER x AFTER INSERT ON free BEGIN INSERT INTO free(x) SELECT secret FROM orders; END", "schema"},
	{"CREATE INDEX x ON orders(secret)", "schema"},
	{"CREATE TABLE x(a)", "schema"},
	{"DROP TABLE orders", "schema"},
	{"DROP VIEW v_orders", "schema"},
	{"ALTER TABLE orders RENAME TO mine", "schema"},
	{"ALTER TABLE orders DROP COLUMN secret", "schema"},
	{"ALTER TABLE orders ADD COLUMN y", "schema"},
	{"CREATE VIRTUAL TABLE x USING fts5(secret, content=orders)", "schema"},
}

// bounded is a caller whom policies bind.
type bounded struct {
	role   string
	scoped bool
	pinned bool
}

var ruledTables = strings.Fields(`orders docs members tasks free trap gun spy kids keys conf odd tags counted docs_fts docs_vocab copy_fts pages v_orders v_deep v_cte v_main v_write v_using v_trigger v_one v_docs view_fts far_fts middle mails cased said tagged x`)

// rule makes the schema, the rows and the policies.
func rule(d *harness.DB) {
	d.Batch(true, ruled...).OK()
	d.Batch(true, ruledRows...).OK()
	for _, r := range rules {
		d.Post(d.Path("policies"), r).OK()
	}
}

// want is what the caller gets where an admin that policies bind gets want.
func (who bounded) want(sql, want string) string {
	word := strings.ToUpper(strings.Fields(strings.NewReplacer("/* c */", "", "/* ( */", "").Replace(sql))[0])
	writes := strings.HasPrefix(want, "=") || word == "INSERT" || word == "UPDATE" || word == "DELETE" || word == "REPLACE" || strings.Contains(sql, ") INSERT") || strings.Contains(sql, ") UPDATE ") || strings.Contains(sql, ") DELETE") || strings.HasPrefix(sql, "EXPLAIN UPDATE")
	switch {
	case want == "function_not_allowed":
	case want == "schema" && who.role != "admin", want == "log" && who.role != "admin", writes && levels[who.role] < 2:
		return "role_not_allowed"
	case want == "schema" && who.scoped:
		return "403" // for one reason or the other
	case want == "schema", want == "log" && !who.scoped:
		return "policy_not_allowed"
	case want == "log":
		return "scope_not_allowed"
	case who.scoped && (strings.Contains(sql, "sqlite_") || strings.Contains(sql, "foreign_key_check") || strings.Contains(sql, "_check") && !strings.Contains(sql, "free")):
		return "403"
	case want == "refused":
		return "policy_not_allowed"
	}
	return want
}

// bind sends all statements as the caller, and returns what is not as it should be, but no more than enough of it.
func (who bounded) bind(admin *harness.Client, d *harness.DB, enough int) (wrong []string) {
	request := body{"name": "bounded", "role": who.role, "claims": annsClaims}
	if who.scoped {
		request["tableScope"] = ruledTables
	}
	if who.pinned {
		request["database"] = d.Slug
	}
	c := admin.As(mint(admin, request)).DB(d.Slug)
	bobs := d.One(bobsRows)
	for _, at := range bounds {
		if len(wrong) >= enough {
			break
		}
		want := who.want(at.sql, at.want)
		a := c.Query(at.sql)
		got := a.Str("code")
		switch {
		case want == "403":
			if a.Status == http.StatusForbidden {
				got = want
			}
		case a.Status == http.StatusOK && strings.HasPrefix(want, "="):
			got = "=" + harness.Text(a.At("data.changes"))
		case a.Status == http.StatusOK:
			rows, _ := json.Marshal(a.At("data.rows"))
			got = string(rows)
			if n := harness.Text(a.At("data.rowsRead")); n != strconv.Itoa(len(a.Rows())) {
				got += " and " + n + " rows read"
			}
		}
		if got != want {
			wrong = append(wrong, fmt.Sprintf("%s: got %s, want %s: %s", at.sql, got, want, harness.Tail(string(a.Raw), 300)))
		}
		if strings.Contains(string(a.Raw), "_persql_claim(") && !strings.Contains(at.sql, "_persql_claim") {
			wrong = append(wrong, fmt.Sprintf("%s: tells of the server's own text: %s", at.sql, a.Raw))
		}
		if after := d.One(bobsRows); after != bobs {
			wrong = append(wrong, fmt.Sprintf("%s: bob has %s", at.sql, after))
		}
		if a.Status == http.StatusOK && !strings.HasPrefix(at.sql, "SELECT") {
			d.Batch(true, ruledRows...).OK()
		}
	}
	return wrong
}

func TestPoliciesBind(t *testing.T) {
	row(t, "DP-POL-1", "DP-POL-4", "DP-POL-5", "DP-POL-6", "DP-POL-7", "DP-POL-8", "DP-POL-9")
	admin := client(t)
	for _, who := range []bounded{{role: "readwrite"}, {role: "write", pinned: true}, {role: "admin"}, {role: "readonly"}, {role: "write", scoped: true}, {role: "admin", scoped: true}} {
		t.Run(fmt.Sprintf("%+v", who), func(t *testing.T) {
			d := admin.With(t).DB(unused())
			rule(d)
			for _, wrong := range who.bind(d.Client, d, 20) {
				t.Error(wrong)
			}
		})
	}
}

// TestPolicies follows policies through what can happen to a database.
func TestPolicies(t *testing.T) {
	row(t, "DP-POL-1", "DP-POL-2", "DP-POL-3", "DP-POL-4", "DP-POL-10", "DP-POL-11", "DP-POL-12")
	s := harness.Start(t, binary, harness.Options{})
	admin := s.Client(t, harness.Token)
	d := admin.DB("shop")
	d.Batch(true, "CREATE TABLE orders(id INTEGER PRIMARY KEY, owner TEXT, n INTEGER)", "CREATE TABLE free(a)", "CREATE VIEW v AS SELECT * FROM orders", "CREATE VIEW u AS SELECT x.id FROM (SELECT 2 AS id) x JOIN orders USING (id)", "CREATE VIRTUAL TABLE f USING fts5(a)",
		"INSERT INTO orders VALUES(1, 'ann', 1), (2, 'bob', 2), (3, NULL, 3)").OK()
	policies := d.Path("policies")
	ann := d.As(mint(admin, body{"role": "readonly", "claims": body{"user": "ann"}}))
	plain, boss := d.As(mint(admin, body{"role": "readonly"})), d.As(mint(admin, body{"claims": body{"user": "bob"}}))
	sees := func(c *harness.Client, want string) {
		t.Helper()
		if got := c.DB("shop").One("SELECT group_concat(id) FROM orders"); got != want {
			t.Errorf("sees %s, want %s", got, want)
		}
	}
	sees(ann, "1,2,3")
	own := body{"name": "own", "tableName": "ORDERS", "expression": "owner = :auth_user"}
	made := d.Post(policies, own).OK()
	made.Is("data.name", "own").Is("data.tableName", "orders").Is("data.appliesTo", `["select"]`).Is("data.enabled", "true").Is("data.expression", "owner = :auth_user").Has("data", "id", "createdAt")
	// From the next request on, also for statements that are compiled already; a claim that isn't there is NULL.
	sees(ann, "1")
	sees(boss, "2")
	sees(plain, "null")
	sees(admin, "1,2,3")
	sees(ann, "1")
	for claims, want := range map[string]string{`{"user":null}`: "null", `{"user":"bob","x":[1]}`: "2", `{"User":"ann"}`: "null", `{}`: "null"} {
		sees(d.As(mint(admin, body{"role": "read", "claims": json.RawMessage(claims)})), want)
	}
	list := d.Get(policies).OK()
	list.Is("data.0.id", made.Str("data.id"))
	audit := admin.Get("/v1/audit?action=policy.created").OK().Is("data.0.target.name", "own").Is("data.0.metadata.expression", "owner = :auth_user").Is("data.0.actor.type", "token")
	if len(audit.List("data")) != 1 {
		t.Error("more entries than policies")
	}

	// What it costs and counts is of what is seen.
	ann.DB("shop").Query("SELECT count(*) FROM orders").OK().Is("data.rowsRead", "1")
	ann.Get(d.Path("tables")).OK().Is("data.2.name", "orders").Is("data.2.rowCount", "1")
	ann.Get(d.Path("describe")).OK().Is("data.tables.2.rowCount", "1")
	ann.Get(d.Path("query-log?limit=1")).OK().Is("data.0.rowsRead", "1")
	ann.Get(d.Path("query-log?tokenId=x")).Fails(http.StatusForbidden, "forbidden")
	boss.Get(d.Path("query-log?tokenId=x")).Fails(http.StatusForbidden, "forbidden")
	ann.Post(d.Path("validate"), harness.Body("SELECT * FROM main.orders")).OK().Is("data.ok", "false")
	ann.Post(d.Path("validate"), harness.Body("SELECT * FROM orders WHERE id = ?", 1)).OK().Is("data.ok", "true")
	ann.Post(d.Path("explain"), harness.Body("SELECT * FROM orders")).Fails(http.StatusForbidden, "policy_not_allowed")
	ann.Post(d.Path("explain"), harness.Body("SELECT * FROM free")).OK()

	// Who may do what.
	for _, c := range []*harness.Client{ann, plain} {
		c.Get(policies).Fails(http.StatusForbidden, "role_not_allowed")
		c.Post(policies, own).Fails(http.StatusForbidden, "role_not_allowed")
		c.Do("DELETE", policies+"/"+made.Str("data.id"), nil).Fails(http.StatusForbidden, "role_not_allowed")
	}
	boss.Get(policies).Fails(http.StatusForbidden, "policy_not_allowed")
	boss.Post(policies, body{"name": "x", "tableName": "free", "expression": "1"}).Fails(http.StatusForbidden, "policy_not_allowed")
	boss.Do("DELETE", policies+"/"+made.Str("data.id"), nil).Fails(http.StatusForbidden, "policy_not_allowed")
	boss.Get(d.Path("export")).Fails(http.StatusForbidden, "policy_not_allowed")
	boss.Post(d.Path("import"), harness.Raw("SELECT 1;")).Fails(http.StatusForbidden, "policy_not_allowed")
	boss.Post(d.Path("load-csv?table=free"), harness.Raw("a\n1\n")).Fails(http.StatusForbidden, "policy_not_allowed")
	boss.Post("/v1/tokens", body{}).Fails(http.StatusForbidden, "policy_not_allowed")
	boss.Post("/v1/users", body{"subject": "x"}).Fails(http.StatusForbidden, "policy_not_allowed")
	boss.Post("/v1/databases", body{"slug": "x"}).Fails(http.StatusForbidden, "policy_not_allowed")
	boss.DB("fresh").Query("SELECT 1").Fails(http.StatusNotFound, "not_found")
	d.As(mint(admin, body{"tableScope": []string{"orders"}})).Get(policies).Fails(http.StatusForbidden, "scope_not_allowed")
	boss.Get("/v1/me").OK().Is("data.scope.claims.user", "bob")

	// What is no policy.
	for _, bad := range []struct {
		request body
		code    string
	}{
		{body{"name": "p", "tableName": "nowhere", "expression": "1"}, "unknown_table"}, {body{"name": "p", "tableName": "sqlite_schema", "expression": "1"}, "unknown_table"},
		{body{"name": "p", "tableName": "v", "expression": "1"}, "policy_invalid"}, {body{"name": "p", "tableName": "f", "expression": "1"}, "policy_invalid"}, {body{"name": "p", "tableName": "f_data", "expression": "1"}, "policy_invalid"},
		{body{"name": "", "tableName": "free", "expression": "1"}, "bad_request"}, {body{"name": "p", "tableName": "free", "expression": ""}, "policy_invalid"},
		{body{"name": "p", "tableName": "free", "expression": "a = 1; DROP TABLE free"}, "policy_invalid"}, {body{"name": "p", "tableName": "free", "expression": "1) OR (1"}, "policy_invalid"},
		{body{"name": "p", "tableName": "free", "expression": "1 -- x"}, "policy_invalid"}, {body{"name": "p", "tableName": "free", "expression": "1 /* x"}, "policy_invalid"}, {body{"name": "p", "tableName": "free", "expression": "a =\n1"}, "policy_invalid"},
		{body{"name": "p", "tableName": "free", "expression": "'a"}, "policy_invalid"}, {body{"name": "p", "tableName": "free", "expression": "nope = 1"}, "policy_invalid"}, {body{"name": "p", "tableName": "free", "expression": "a = ?"}, "policy_invalid"},
		{body{"name": "p", "tableName": "free", "expression": "a = :user"}, "policy_invalid"},
		{body{"name": "p", "tableName": "free", "expression": "a = \"public\""}, "policy_invalid"}, {body{"name": "p", "tableName": "free", "expression": "a IN (SELECT id FROM main.orders)"}, "policy_invalid"}, {body{"name": "p", "tableName": "free", "expression": "a IN (SELECT id FROM v)"}, "policy_invalid"}, {body{"name": "p", "tableName": "free", "expression": "a = :auth_"}, "policy_invalid"}, {body{"name": "p", "tableName": "free", "expression": "count(*) > 1"}, "policy_invalid"},
		{body{"name": "p", "tableName": "free", "expression": "a IN (SELECT id FROM u) AND 1 IN (SELECT id FROM orders)"}, "policy_invalid"},
		{body{"name": "p", "tableName": "free", "expression": "1 LIMIT 1"}, "policy_invalid"}, {body{"name": "p", "tableName": "free", "expression": "load_extension('x')"}, "policy_invalid"}, {body{"name": "p", "tableName": "free", "expression": "EXISTS (SELECT 1 FROM _persql_meta_query_log)"}, "policy_invalid"},
		{body{"name": "p", "tableName": "free", "expression": "(SELECT page_count FROM pragma_page_count)"}, "policy_invalid"}, {body{"name": "p", "tableName": "free", "expression": strings.Repeat("1+", 2100) + "1"}, "policy_invalid"},
		{body{"name": "p", "tableName": "free", "expression": "1", "appliesTo": []string{}}, "bad_request"}, {body{"name": "p", "tableName": "free", "expression": "1", "appliesTo": []string{"select", "select"}}, "bad_request"},
		{body{"name": "p", "tableName": "free", "expression": "1", "appliesTo": []string{"SELECT"}}, "bad_request"}, {body{"name": "p", "tableName": "free", "expression": "1", "applies_to": []string{"select"}}, "bad_json"}, {body{"name": strings.Repeat("x", 201), "tableName": "free", "expression": "1"}, "bad_request"},
	} {
		d.Post(policies, bad.request).Fails(http.StatusBadRequest, bad.code)
	}
	d.Post(policies, own).Fails(http.StatusConflict, "policy_exists")
	d.Post(policies, own, harness.Header("Plan-Key: k"), harness.Header("Plan-Step: 1")).Fails(http.StatusBadRequest, "invalid_idempotency_key")
	d.Do("DELETE", policies+"/"+made.Str("data.id"), nil, harness.Header("Plan-Key: k"), harness.Header("Plan-Step: 1")).Fails(http.StatusBadRequest, "invalid_idempotency_key")
	d.Do("DELETE", policies+"/pol_none", nil).Fails(http.StatusNotFound, "not_found")
	other := admin.DB("other")
	other.Must("CREATE TABLE orders(id)")
	other.Do("DELETE", other.Path("policies/"+made.Str("data.id")), nil).Fails(http.StatusNotFound, "not_found")
	// In a circle, and not.
	around := d.Post(policies, body{"name": "around", "tableName": "free", "expression": "a IN (SELECT id FROM orders)"}).OK()
	d.Post(policies, body{"name": "back", "tableName": "orders", "expression": "id IN (SELECT a FROM free)"}).Fails(http.StatusBadRequest, "policy_invalid").Tells("circular")
	d.Post(policies, body{"name": "itself", "tableName": "orders", "expression": "n < (SELECT count(*) FROM orders)"}).Fails(http.StatusBadRequest, "policy_invalid")
	d.Post(policies, body{"name": "not yet", "tableName": "orders", "expression": "id IN (SELECT a FROM free)", "enabled": false}).OK().Is("data.enabled", "false")
	sees(ann, "1")
	d.Do("DELETE", policies+"/"+around.Str("data.id"), nil).OK().Is("data.deleted", "true")

	// All policies of a table hold together.
	more := d.Post(policies, body{"name": "few", "tableName": "orders", "expression": "n > 5"}).OK()
	sees(ann, "null")
	d.Do("DELETE", policies+"/"+more.Str("data.id"), nil).OK()
	sees(ann, "1")
	for n := len(d.Get(policies).OK().List("data")); n < 100; n++ {
		d.Post(policies, body{"name": fmt.Sprint("p", n), "tableName": "free", "expression": "1"}).OK()
	}
	d.Post(policies, body{"name": "one too many", "tableName": "free", "expression": "1"}).Fails(http.StatusConflict, "too_many_policies")

	// A table with policies keeps its name; one of the name has them, whenever it is made.
	d.Query("ALTER TABLE orders RENAME TO mine").Fails(http.StatusForbidden, "policy_not_allowed")
	d.Batch(true, "CREATE TABLE new_orders(id INTEGER PRIMARY KEY, owner TEXT, n INTEGER)", "INSERT INTO new_orders SELECT * FROM orders", "DROP VIEW v", "DROP VIEW u", "DROP TABLE orders", "ALTER TABLE new_orders RENAME TO orders").OK()
	sees(ann, "1")
	// Without its column nobody is shown more.
	d.Must("ALTER TABLE orders RENAME COLUMN owner TO boss")
	ann.DB("shop").Query("SELECT id FROM orders").Fails(http.StatusForbidden, "policy_not_allowed").Tells("owner")
	sees(admin, "1,2,3")
	d.Must("ALTER TABLE orders RENAME COLUMN boss TO owner")
	sees(ann, "1")

	// They outlive what becomes of the database.
	if code := s.Stop(t); code != 0 {
		t.Errorf("stopped with %d", code)
	}
	s = harness.Start(t, binary, harness.Options{Data: s.Data})
	at := func(c *harness.Client) *harness.Client { return s.Client(t, c.Token()) }
	admin, ann = at(admin), at(ann)
	d = admin.DB("shop")
	sees(ann, "1")
	d.Post(d.Path("import"), harness.Raw("DROP TABLE orders; CREATE TABLE orders(id INTEGER PRIMARY KEY, owner TEXT); INSERT INTO orders VALUES(7, 'ann'), (8, 'bob');"), harness.Header("Content-Type: application/sql")).OK()
	sees(ann, "7")
	id := admin.Get("/v1/databases/shop").OK().Str("data.id")
	admin.Do("DELETE", "/v1/databases/shop", nil).OK()
	admin.Post("/v1/databases", body{"slug": "shop"}).OK()
	d.Batch(true, "CREATE TABLE orders(id)", "INSERT INTO orders VALUES(1), (2)").OK()
	sees(ann, "1,2") // another database, without policies
	admin.Do("DELETE", "/v1/databases/shop", nil).OK()
	admin.Post("/v1/databases/"+id+"/undelete", nil).OK()
	sees(ann, "7")
	for _, p := range d.Get(policies).OK().List("data") {
		d.Do("DELETE", policies+"/"+p.(map[string]any)["id"].(string), nil).OK()
	}
	sees(ann, "7,8")
	if n := len(admin.Get("/v1/audit?action=policy.deleted&limit=500").OK().List("data")); n != 102 {
		t.Errorf("%d policies deleted", n)
	}

	// By hand.
	out := s.JSONOf(t, "token", "create", "--namespace", "default", "--role", "read", "--claims", `{"user": "bob"}`, "--json")
	s.Client(t, out["token"].(string)).Get("/v1/me").OK().Is("data.scope.claims.user", "bob")
	if _, stderr, code := s.CLI(t, "token", "create", "--namespace", "default", "--claims", "[1]"); code != 1 || !strings.Contains(stderr, "claims") {
		t.Errorf("%d %s", code, stderr)
	}
}

// TestPolicyOverView changes a view that a policy reads.
func TestPolicyOverView(t *testing.T) {
	row(t, "DP-POL-4")
	d := client(t).DB(unused())
	d.Batch(true, "CREATE TABLE orders(id INTEGER PRIMARY KEY, owner TEXT)", "CREATE TABLE lines(id INTEGER PRIMARY KEY, ord INTEGER)", "CREATE TABLE acl(ord INTEGER)", "CREATE VIEW may AS SELECT ord FROM acl",
		"INSERT INTO orders VALUES(1, 'ann'), (2, 'bob')", "INSERT INTO lines VALUES(1, 1), (2, 2)", "INSERT INTO acl VALUES(1)").OK()
	d.Post(d.Path("policies"), body{"name": "own", "tableName": "orders", "expression": "owner = :auth_user", "appliesTo": every}).OK()
	d.Post(d.Path("policies"), body{"name": "by view", "tableName": "lines", "expression": "ord IN (SELECT ord FROM may) AND ord IN (SELECT id FROM orders UNION SELECT 2)", "appliesTo": every}).OK()
	ann := d.As(mint(d.Client, body{"claims": body{"user": "ann"}})).DB(d.Slug)
	if got := ann.One("SELECT group_concat(id) FROM lines"); got != "1" {
		t.Error(got)
	}
	ann.Query("INSERT INTO lines VALUES(3, 1)").OK()
	d.Batch(true, "DROP VIEW may", "CREATE VIEW may AS SELECT id AS ord FROM (SELECT 1 AS id UNION SELECT 2) JOIN orders USING (id)").OK()
	for _, sql := range []string{"SELECT * FROM lines", "INSERT INTO lines VALUES(4, 2)", "UPDATE lines SET ord = 2", "DELETE FROM lines"} {
		ann.Query(sql).Fails(http.StatusForbidden, "policy_not_allowed")
	}
}
