package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/persqld/persqld/e2e/harness"
)

// guarded is a schema with a way from what a scoped token has to what it hasn't for every kind of object.
var guarded = []any{
	"CREATE TABLE orders(id INTEGER PRIMARY KEY, customer INTEGER, total REAL)",
	"CREATE TABLE customers(id INTEGER PRIMARY KEY, name TEXT, card TEXT UNIQUE)",
	"CREATE TABLE secret(id INTEGER PRIMARY KEY, k TEXT, hidden TEXT)",
	"CREATE INDEX secret_k ON secret(k)",
	"CREATE TABLE audit(what TEXT)",
	"CREATE TABLE items(id INTEGER PRIMARY KEY, name TEXT)",
	"CREATE TABLE parts(id INTEGER PRIMARY KEY, item INTEGER REFERENCES items(id) ON DELETE CASCADE)",
	"CREATE TABLE lines(id INTEGER PRIMARY KEY, ord INTEGER REFERENCES orders(id) ON DELETE SET NULL)",
	"CREATE TABLE payments(id INTEGER PRIMARY KEY, customer INTEGER REFERENCES customers(id))",
	"CREATE TABLE tasks(id INTEGER PRIMARY KEY AUTOINCREMENT, t TEXT)",
	"CREATE TRIGGER tasks_audit AFTER INSERT ON tasks BEGIN INSERT INTO audit VALUES(new.t); END",
	"CREATE TABLE logs(id INTEGER PRIMARY KEY, t TEXT)",
	"CREATE TRIGGER logs_peek AFTER INSERT ON logs BEGIN UPDATE logs SET t = (SELECT hidden FROM secret) WHERE id = new.id; END",
	"CREATE TABLE counters(id INTEGER PRIMARY KEY, n INTEGER)",
	"CREATE TRIGGER counters_own AFTER UPDATE ON counters WHEN new.n < 0 BEGIN INSERT INTO items(name) VALUES('neg'); END",
	"CREATE INDEX orders_total ON orders(total)",
	"CREATE VIEW order_view AS SELECT id, total FROM orders",
	"CREATE VIEW both_view AS SELECT o.id, c.card FROM orders o JOIN customers c ON c.id = o.customer",
	"CREATE VIEW deep_view AS SELECT * FROM both_view",
	"CREATE VIEW secret_view AS SELECT hidden FROM secret",
	"CREATE VIEW hidden_view AS SELECT id FROM orders",
	"CREATE VIEW write_view AS SELECT id FROM orders",
	"CREATE TRIGGER write_view_ins INSTEAD OF INSERT ON write_view BEGIN INSERT INTO audit VALUES(new.id); END",
	"CREATE VIEW own_write_view AS SELECT id FROM orders",
	"CREATE TRIGGER own_write_view_ins INSTEAD OF INSERT ON own_write_view BEGIN INSERT INTO orders(id) VALUES(new.id); END",
	"CREATE VIRTUAL TABLE pages USING fts5(body)",
	"CREATE TABLE docs(id INTEGER PRIMARY KEY, body TEXT)",
	"CREATE VIRTUAL TABLE docs_fts USING fts5(body, content=docs, content_rowid=id)",
	"CREATE VIRTUAL TABLE pages_vocab USING fts5vocab(pages, row)",
	"CREATE VIRTUAL TABLE secret_fts USING fts5(body)",
	"CREATE VIRTUAL TABLE secret_vocab USING fts5vocab(secret_fts, row)",
	"CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1)",
	"CREATE TABLE keys(k TEXT PRIMARY KEY, v TEXT) WITHOUT ROWID",
	"CREATE TABLE holders(k TEXT REFERENCES keys(k))",
	"CREATE TABLE chain(id INTEGER PRIMARY KEY)",
	"CREATE TABLE link(id INTEGER PRIMARY KEY, chain INTEGER REFERENCES chain(id) ON DELETE CASCADE)",
	"CREATE TRIGGER link_peek AFTER DELETE ON link BEGIN UPDATE counters SET n = (SELECT hidden FROM secret); END",
	"INSERT INTO orders VALUES(1, 1, 10), (2, 2, 20)",
	"INSERT INTO customers VALUES(1, 'a', '4111'), (2, 'b', '4222')",
	"INSERT INTO secret VALUES(1, 'k', 'h')",
	"INSERT INTO items VALUES(1, 'cup')",
	"INSERT INTO parts VALUES(1, 1)",
	"INSERT INTO lines VALUES(1, 1)",
	"INSERT INTO docs VALUES(1, 'word')",
	"INSERT INTO pages VALUES('page')",
	"INSERT INTO secret_fts VALUES('secretword')",
	"INSERT INTO boxes VALUES(1, 0, 1)",
	"INSERT INTO counters VALUES(1, 1)",
	"INSERT INTO keys VALUES('a', 'b')",
}

// guard makes the schema, and a table of the server's own.
func guard(d *harness.DB) {
	d.Batch(true, guarded...).OK()
	d.Post(d.Path("query"), harness.Body("INSERT INTO audit VALUES('kept')"), key("kept")).OK()
}

// inScope are the tables and views of the scoped tokens.
var inScope = strings.Fields(`orders order_view both_view deep_view secret_view write_view own_write_view items lines payments tasks logs counters pages
	docs_fts pages_vocab secret_vocab boxes fresh keys chain link`)

// attacks say of each statement which role it takes (specification of tokens: SELECT and pragmas that read; INSERT, UPDATE,
// DELETE; everything else) and which tables it touches: "*" is all of them.
var attacks = []struct{ sql, role, tables string }{
	// Reads.
	{"SELECT 1", "read", ""},
	{"VALUES(1), (2)", "read", ""},
	{"SELECT * FROM orders", "read", "orders"},
	{"SELECT * FROM Orders", "read", "orders"},
	{`SELECT * FROM main."ORDERS"`, "read", "orders"},
	{"SELECT count(*) FROM orders", "read", "orders"},
	{"SELECT * FROM customers", "read", "customers"},
	{"SELECT count(*) FROM customers", "read", "customers"},
	{"SELECT 1 FROM customers", "read", "customers"},
	{"SELECT rowid FROM customers", "read", "customers"},
	{"SELECT * FROM [customers]", "read", "customers"},
	{"SELECT * FROM `Customers`", "read", "customers"},
	{"SELECT * FROM 'customers'", "read", "customers"},
	{"SELECT * FROM main.customers", "read", "customers"},
	{"SELECT/**/*/**/FROM/**/customers--", "read", "customers"},
	{"SELECT * FROM orders, customers", "read", "orders customers"},
	{"SELECT secret FROM (SELECT '4111' AS card) JOIN customers USING (card), (SELECT 1 AS secret)", "read", "customers"},
	{"SELECT x.card FROM (SELECT '4111' AS card) x NATURAL JOIN (SELECT card FROM customers)", "read", "customers"},
	{"SELECT x.card FROM (SELECT '4111' AS card UNION SELECT '0') x JOIN customers USING (card)", "read", "customers"},
	{"SELECT x.hidden FROM (SELECT 'h' AS hidden) x JOIN secret USING (hidden)", "read", "secret"},
	{"WITH x(hidden) AS (SELECT 'h') SELECT hidden FROM x JOIN secret USING (hidden)", "read", "secret"},
	{"SELECT x.id FROM (SELECT 1 AS id) x JOIN orders USING (id)", "read", "orders"},
	{"UPDATE orders SET total = 1 FROM (SELECT 'h' AS hidden) x JOIN secret USING (hidden) WHERE orders.id = 1", "write", "orders secret"},
	{"SELECT x.body FROM (SELECT 'secretword' AS body) x JOIN secret_fts USING (body)", "read", "secret_fts"},
	{"SELECT x.body FROM (SELECT 'docsword' AS body) x JOIN docs_fts USING (body)", "read", "docs docs_fts"},
	{"SELECT x.term FROM (SELECT 'secretword' AS term) x JOIN secret_vocab USING (term)", "read", "secret_fts secret_vocab"},
	{"SELECT x.name FROM (SELECT 'tasks' AS name) x JOIN sqlite_sequence USING (name)", "read", "*"},
	{"SELECT x.name FROM (SELECT 'secret' AS name) x JOIN sqlite_schema USING (name)", "read", "*"},
	{"INSERT INTO tasks(t) SELECT x.name FROM (SELECT 'tasks' AS name) x JOIN sqlite_sequence USING (name)", "write", "* tasks"},
	{"SELECT x.scope FROM (SELECT x'00' AS scope) x JOIN sqlite_persql_kept_v1 USING (scope)", "system_object", ""},
	{"SELECT x.pgno FROM (SELECT 1 AS pgno) x JOIN sqlite_dbpage USING (pgno)", "system_object", ""},
	{"SELECT x.name FROM (SELECT 'orders' AS name) x JOIN dbstat USING (name)", "system_object", ""},
	{"SELECT x.sql FROM (SELECT 'x' AS sql) x JOIN _persql_meta_query_log USING (sql)", "admin", "*"},
	{"SELECT x.journal_mode FROM (SELECT 'wal' AS journal_mode) x JOIN pragma_journal_mode USING (journal_mode)", "pragma_not_allowed", ""},
	{"SELECT o.id FROM orders o LEFT JOIN customers c ON c.id = o.customer", "read", "orders customers"},
	{"SELECT * FROM orders NATURAL JOIN customers", "read", "orders customers"},
	{"SELECT * FROM orders UNION SELECT * FROM customers", "read", "orders customers"},
	{"SELECT * FROM orders EXCEPT SELECT * FROM customers", "read", "orders customers"},
	{"SELECT * FROM orders ORDER BY (SELECT card FROM customers LIMIT 1)", "read", "orders customers"},
	{"SELECT * FROM orders LIMIT (SELECT count(*) FROM customers)", "read", "orders customers"},
	{"SELECT * FROM orders WHERE id IN (SELECT id FROM customers)", "read", "orders customers"},
	{"SELECT * FROM orders WHERE id IN audit", "read", "orders audit"},
	{"SELECT * FROM orders WHERE EXISTS (SELECT 1 FROM customers)", "read", "orders customers"},
	{"SELECT (SELECT card FROM customers) FROM orders", "read", "orders customers"},
	{"SELECT total, sum(total) OVER (ORDER BY (SELECT id FROM customers)) FROM orders", "read", "orders customers"},
	{"SELECT max(total) FILTER (WHERE EXISTS (SELECT 1 FROM customers)) FROM orders", "read", "orders customers"},
	{"SELECT group_concat(card) FROM customers GROUP BY name HAVING count(*) > 0", "read", "customers"},
	// Common table expressions and subqueries.
	{"WITH x AS (SELECT 1 AS a) SELECT a FROM x", "read", ""},
	{"WITH x AS (SELECT 1 AS a) SELECT count(*) FROM x", "read", ""},
	{"WITH x AS (SELECT * FROM orders) SELECT count(*) FROM x", "read", "orders"},
	{"WITH x AS (SELECT * FROM customers) SELECT * FROM x", "read", "customers"},
	{"WITH orders AS (SELECT * FROM customers) SELECT * FROM orders", "read", "customers"},
	{"WITH customers AS (SELECT 1 AS id) SELECT id FROM customers", "read", ""},
	{"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5) SELECT sum(i) FROM n", "read", ""},
	{"WITH RECURSIVE n(i) AS (SELECT id FROM customers UNION ALL SELECT i + 1 FROM n WHERE i < 5) SELECT sum(i) FROM n", "read", "customers"},
	{"WITH x AS MATERIALIZED (SELECT * FROM customers) SELECT 1 FROM x", "read", "customers"},
	{"SELECT * FROM (SELECT * FROM (SELECT card FROM customers))", "read", "customers"},
	{"SELECT * FROM (SELECT id FROM orders) JOIN (SELECT card FROM customers)", "read", "orders customers"},
	{"SELECT * FROM json_each((SELECT json_group_array(card) FROM customers))", "read", "customers"},
	{"SELECT value FROM json_each('[1,2]')", "read", ""},
	{"SELECT count(*) FROM json_each('[1,2]')", "read", ""},
	{"SELECT key FROM json_tree('{\"a\":[1]}')", "read", ""},
	{"SELECT o.id, j.value FROM orders o, json_each(json_array(o.total)) j", "read", "orders"},
	// Views.
	{"SELECT * FROM order_view", "read", "order_view orders"},
	{"SELECT count(*) FROM order_view", "read", "order_view orders"},
	{"SELECT * FROM both_view", "read", "both_view orders customers"},
	{"SELECT id FROM both_view", "read", "both_view orders customers"},
	{"SELECT count(*) FROM both_view", "read", "both_view orders customers"},
	{"SELECT * FROM deep_view", "read", "deep_view both_view orders customers"},
	{"SELECT 1 FROM deep_view", "read", "deep_view both_view orders customers"},
	{"SELECT count(*) FROM hidden_view", "read", "hidden_view orders"},
	{"SELECT 1 FROM orders, hidden_view", "read", "hidden_view orders"},
	{"SELECT * FROM secret_view", "read", "secret_view secret"},
	{"SELECT count(*) FROM secret_view", "read", "secret_view secret"},
	{"SELECT * FROM main.secret_view", "read", "secret_view secret"},
	{"WITH x AS (SELECT * FROM secret_view) SELECT * FROM x", "read", "secret_view secret"},
	{"SELECT * FROM orders WHERE id IN (SELECT id FROM deep_view)", "read", "orders deep_view both_view customers"},
	// Virtual tables.
	{"SELECT * FROM pages WHERE pages MATCH 'page'", "read", "pages"},
	{"SELECT highlight(pages, 0, '<', '>') FROM pages('page')", "read", "pages"},
	{"SELECT * FROM pages_content", "read", "pages"},
	{"SELECT * FROM pages_data", "read", "pages"},
	{"SELECT term FROM pages_vocab", "read", "pages_vocab pages"},
	{"SELECT * FROM docs_fts", "read", "docs_fts docs"},
	{"SELECT * FROM docs_fts('word')", "read", "docs_fts docs"},
	{"SELECT rowid FROM docs_fts('word')", "read", "docs_fts docs"},
	{"SELECT * FROM docs_fts_data", "read", "docs_fts"},
	{"SELECT term FROM secret_vocab", "read", "secret_vocab secret_fts"},
	{"SELECT * FROM secret_fts", "read", "secret_fts"},
	{"SELECT * FROM secret_fts_content", "read", "secret_fts"},
	{"SELECT * FROM boxes WHERE x0 > -1", "read", "boxes"},
	{"SELECT * FROM boxes_node", "read", "boxes"},
	{"INSERT INTO docs_fts(docs_fts) VALUES('rebuild')", "write", "docs_fts docs"},
	{"INSERT INTO pages VALUES('x')", "write", "pages"},
	{"INSERT INTO boxes VALUES(2, 0, 1)", "write", "boxes"},
	// System objects.
	{"SELECT * FROM sqlite_schema", "read", "*"},
	{"SELECT count(*) FROM sqlite_schema", "read", "*"},
	{"SELECT sql FROM sqlite_master WHERE name = 'orders'", "read", "*"},
	{"SELECT (SELECT sql FROM sqlite_master LIMIT 1) FROM orders", "read", "*"},
	{"WITH x AS (SELECT sql FROM sqlite_schema) SELECT * FROM x", "read", "*"},
	{"SELECT * FROM sqlite_sequence", "read", "*"},
	{"SELECT seq FROM sqlite_sequence WHERE name = 'tasks'", "read", "*"},
	{"UPDATE sqlite_sequence SET seq = 9", "admin", "*"},
	{"DELETE FROM sqlite_sequence", "admin", "*"},
	{"INSERT INTO sqlite_sequence VALUES('tasks', 4)", "admin", "*"},
	{"SELECT * FROM _persql_meta_query_log", "admin", "*"},
	{"SELECT count(*) FROM _persql_meta_query_log", "admin", "*"},
	// Pragmas.
	{"PRAGMA table_info(orders)", "read", "orders"},
	{"PRAGMA table_info(customers)", "read", "customers"},
	{"PRAGMA table_info('Customers')", "read", "customers"},
	{"PRAGMA main.table_xinfo(customers)", "read", "customers"},
	{"PRAGMA table_info = customers", "read", "customers"},
	{"PRAGMA table_list", "read", "*"},
	{"PRAGMA table_list(orders)", "read", "orders"},
	{"PRAGMA table_list(secret)", "read", "secret"},
	{"PRAGMA index_list(orders)", "read", "orders"},
	{"PRAGMA index_list(secret)", "read", "secret"},
	{"PRAGMA index_info(orders_total)", "read", "orders"},
	{"PRAGMA index_info(secret_k)", "read", "secret"},
	{"PRAGMA index_xinfo(SECRET_K)", "read", "secret"},
	{"PRAGMA index_info(keys)", "read", "keys"},
	{"PRAGMA foreign_key_list(lines)", "read", "lines"},
	{"PRAGMA foreign_key_list(parts)", "read", "parts"},
	{"PRAGMA foreign_key_check", "read", "*"},
	{"PRAGMA integrity_check", "read", "*"},
	{"PRAGMA integrity_check(orders)", "read", "orders"},
	{"PRAGMA integrity_check(secret)", "read", "secret"},
	{"PRAGMA quick_check(5)", "read", "*"},
	{"PRAGMA user_version", "read", ""},
	{"PRAGMA page_size", "read", ""},
	{"PRAGMA collation_list", "read", ""},
	{"PRAGMA database_list", "read", ""},
	{"PRAGMA user_version = 7", "admin", ""},
	{"PRAGMA application_id(7)", "admin", ""},
	{"PRAGMA optimize", "write", "*"},
	{"PRAGMA defer_foreign_keys = ON", "write", ""},
	{"SELECT * FROM pragma_table_info('orders')", "read", "orders"},
	{"SELECT * FROM pragma_table_info('customers')", "read", "customers"},
	{"SELECT name FROM pragma_table_xinfo('Secret')", "read", "secret"},
	{"SELECT count(*) FROM pragma_table_info('secret')", "read", "secret"},
	{"SELECT p.name FROM orders o, pragma_table_info(CASE o.id WHEN 1 THEN 'secret' ELSE 'orders' END) p", "read", "orders secret"},
	{"SELECT * FROM pragma_table_list", "read", "*"},
	{"SELECT * FROM pragma_index_list('secret')", "read", "secret"},
	{"SELECT * FROM pragma_index_info('secret_k')", "read", "*"},
	{"SELECT * FROM pragma_foreign_key_list('parts')", "read", "parts"},
	{"SELECT * FROM pragma_integrity_check", "read", "*"},
	{"SELECT * FROM pragma_function_list", "read", ""},
	// INSERT, UPDATE, DELETE.
	{"INSERT INTO orders(total) VALUES(1)", "write", "orders"},
	{"INSERT INTO orders DEFAULT VALUES", "write", "orders"},
	{"REPLACE INTO orders VALUES(1, 1, 1)", "write", "orders"},
	{"INSERT OR REPLACE INTO customers VALUES(1, 'x', 'y')", "write", "customers"},
	{"INSERT INTO customers(name) VALUES('x')", "write", "customers"},
	{"INSERT INTO orders SELECT id + 10, id, id FROM customers", "write", "orders customers"},
	{"INSERT INTO orders(total) VALUES((SELECT card FROM customers LIMIT 1))", "write", "orders customers"},
	{"INSERT INTO orders VALUES(1, 2, 3) ON CONFLICT(id) DO UPDATE SET total = 5", "write", "orders"},
	{"INSERT INTO orders VALUES(1, 2, 3) ON CONFLICT(id) DO UPDATE SET total = (SELECT card FROM customers)", "write", "orders customers"},
	{"INSERT INTO orders(total) VALUES(1) RETURNING *", "write", "orders"},
	{"INSERT INTO orders(total) VALUES(1) RETURNING (SELECT card FROM customers)", "write", "orders customers"},
	{"WITH x AS (SELECT card FROM customers) INSERT INTO orders(total) SELECT card FROM x", "write", "orders customers"},
	{"UPDATE orders SET total = 1", "write", "orders"},
	{"UPDATE orders SET total = 1 WHERE id = 99", "write", "orders"},
	{"UPDATE OR IGNORE orders SET total = 1 RETURNING total", "write", "orders"},
	{"UPDATE customers SET card = id", "write", "customers"},
	{"UPDATE orders SET total = c.card FROM customers c WHERE c.id = orders.customer", "write", "orders customers"},
	{"UPDATE orders SET total = (SELECT max(id) FROM customers)", "write", "orders customers"},
	{"UPDATE orders SET total = 1 WHERE customer IN (SELECT id FROM customers)", "write", "orders customers"},
	{"UPDATE orders SET total = 1 RETURNING (SELECT hidden FROM secret)", "write", "orders secret"},
	{"DELETE FROM lines", "write", "lines"},
	{"DELETE FROM secret", "write", "secret"},
	{"DELETE FROM counters WHERE id = (SELECT min(id) FROM secret)", "write", "counters secret"},
	{"DELETE FROM counters", "write", "counters"},
	{"DELETE FROM counters RETURNING *", "write", "counters"},
	{"WITH x AS (SELECT 1 AS i) DELETE FROM counters WHERE id IN (SELECT i FROM x)", "write", "counters"},
	// Triggers, cascades, foreign keys.
	{"INSERT INTO tasks(t) VALUES('x')", "write", "tasks audit"},
	{"INSERT INTO logs(t) VALUES('x')", "write", "logs secret"},
	{"UPDATE logs SET t = 'x'", "write", "logs"},
	{"UPDATE counters SET n = 2", "write", "counters items"},
	{"INSERT INTO write_view VALUES(5)", "write", "write_view audit"},
	{"INSERT INTO own_write_view VALUES(5)", "write", "own_write_view orders"},
	{"DELETE FROM items", "write", "items parts"},
	{"DELETE FROM items WHERE id = 99", "write", "items parts"},
	{"REPLACE INTO items VALUES(1, 'x')", "write", "items parts"},
	{"DELETE FROM orders", "write", "orders lines"},
	{"DELETE FROM chain", "write", "chain link counters secret"}, // an action of a key fires the trigger
	{"DELETE FROM link", "write", "link counters secret"},
	{"INSERT INTO link VALUES(1, NULL)", "write", "link"},
	{"INSERT INTO payments VALUES(1, 1)", "write", "payments"},
	{"INSERT INTO payments(customer) VALUES(1), (2)", "write", "payments"},
	{"INSERT INTO payments(customer) SELECT id FROM customers", "write", "payments customers"},
	{"INSERT INTO payments(customer) VALUES((SELECT max(id) FROM customers))", "write", "payments customers"},
	{"INSERT INTO items(name) VALUES('a'), ('b')", "write", "items"},
	{"DELETE FROM keys", "write", "keys"},
	{"DELETE FROM keys WHERE k IN (SELECT k FROM holders)", "write", "keys holders"},
	{"INSERT INTO lines VALUES(5, 1)", "write", "lines"},
	{"UPDATE payments SET customer = 2", "write", "payments"},
	{"UPDATE payments SET customer = (SELECT id FROM customers)", "write", "payments customers"},
	// The schema.
	{"CREATE TABLE fresh(a)", "admin", "fresh"},
	{"CREATE TABLE IF NOT EXISTS fresh(a INTEGER PRIMARY KEY AUTOINCREMENT, b UNIQUE)", "admin", "fresh"},
	{"CREATE TABLE other(a)", "admin", "other"},
	{"CREATE TABLE fresh(a REFERENCES orders(id))", "admin", "fresh orders"},
	{"CREATE TABLE fresh(a REFERENCES customers(id))", "admin", "fresh customers"},
	{"ALTER TABLE orders ADD COLUMN z REFERENCES secret(id)", "admin", "orders secret"},
	{"ALTER TABLE payments ADD COLUMN z", "admin", "payments"},
	{"CREATE TABLE fresh AS SELECT id FROM orders", "admin", "fresh orders"},
	{"CREATE TABLE fresh AS SELECT * FROM customers", "admin", "fresh customers"},
	{"CREATE TABLE fresh AS SELECT sql FROM sqlite_schema", "admin", "*"},
	{"CREATE TABLE fresh AS SELECT * FROM sqlite_sequence", "admin", "*"},
	{"CREATE TABLE fresh AS SELECT seq FROM sqlite_sequence WHERE name = 'tasks'", "admin", "*"},
	{"CREATE VIEW fresh AS SELECT * FROM customers", "admin", "fresh customers"},
	{"CREATE VIEW fresh AS SELECT id FROM orders", "admin", "fresh orders"},
	{"DROP TABLE IF EXISTS nowhere", "admin", ""},
	{"DROP INDEX IF EXISTS nowhere", "admin", ""},
	{"CREATE INDEX IF NOT EXISTS orders_total ON orders(total)", "admin", ""},
	{"ALTER TABLE keys RENAME TO orders_data", "admin", "keys orders_data"},
	{"PRAGMA integrity_check(100)", "read", "*"},
	{"SELECT title FROM (SELECT body AS title FROM pages WHERE pages MATCH 'page' ORDER BY rank)", "read", "pages"},
	{"SELECT body FROM pages WHERE pages MATCH 'page' ORDER BY rank LIMIT 5", "read", "pages"},
	{"SELECT body FROM docs_fts('word') ORDER BY rank", "read", "docs_fts docs"},
	{"CREATE VIEW fresh AS SELECT 1", "admin", "fresh"},
	{"CREATE VIEW other AS SELECT 1", "admin", "other"},
	{"CREATE INDEX i ON orders(customer)", "admin", "orders"},
	{"CREATE UNIQUE INDEX i ON secret(hidden)", "admin", "secret"},
	{"CREATE INDEX i ON orders(total) WHERE total > 5", "admin", "orders"},
	{"CREATE TRIGGER x AFTER INSERT ON orders BEGIN SELECT 1; END", "admin", "*"},
	{"CREATE TRIGGER x AFTER INSERT ON customers BEGIN INSERT INTO orders(total) VALUES(new.card); END", "admin", "*"},
	{"CREATE VIRTUAL TABLE fresh USING fts5(a)", "admin", "fresh"},
	{"CREATE VIRTUAL TABLE other USING rtree(a, b, c)", "admin", "other"},
	{"ALTER TABLE orders ADD COLUMN z", "admin", "orders"},
	{"ALTER TABLE secret ADD COLUMN z", "admin", "secret"},
	{"ALTER TABLE counters RENAME COLUMN n TO m", "admin", "counters"},
	{"ALTER TABLE keys RENAME TO fresh", "admin", "keys fresh"},
	{"ALTER TABLE keys RENAME TO other", "admin", "keys other"},
	{"ALTER TABLE secret RENAME TO fresh", "admin", "secret fresh"},
	{"ALTER TABLE pages RENAME TO fresh", "admin", "pages fresh"},
	{"DROP TABLE counters", "admin", "counters"},
	{"DROP TABLE audit", "admin", "audit"},
	{"DROP TABLE IF EXISTS secret", "admin", "secret"},
	{"DROP VIEW order_view", "admin", "order_view"},
	{"DROP INDEX orders_total", "admin", "orders"},
	{"DROP INDEX secret_k", "admin", "secret"},
	{"DROP TRIGGER tasks_audit", "admin", "tasks"},
	{"DROP TABLE pages", "admin", "pages"},
	{"DROP TABLE boxes", "admin", "boxes"},
	{"REINDEX orders_total", "admin", "orders"},
	{"REINDEX secret_k", "admin", "secret"},
	{"REINDEX", "admin", "*"},
	{"ANALYZE", "write", "*"},
	{"ANALYZE orders", "write", "*"},
	{"EXPLAIN SELECT * FROM customers", "read", "customers"},
	{"EXPLAIN QUERY PLAN SELECT * FROM secret WHERE k = 'x'", "read", "secret"},
	{"EXPLAIN QUERY PLAN DELETE FROM counters", "write", "counters"},
	{"EXPLAIN INSERT INTO payments VALUES(1, 1)", "write", "payments"},
	{"EXPLAIN DROP TABLE counters", "admin", "counters"},
	// What nobody may: the code instead of a role.
	{"ATTACH ':memory:' AS x", "attach_not_allowed", ""},
	{"ATTACH '/etc/passwd' AS x", "attach_not_allowed", ""},
	{"DETACH main", "attach_not_allowed", ""},
	{"BEGIN", "transaction_statement", ""},
	{"COMMIT", "transaction_statement", ""},
	{"ROLLBACK", "transaction_statement", ""},
	{"SAVEPOINT s", "transaction_statement", ""},
	{"RELEASE request", "transaction_statement", ""},
	{"ROLLBACK TO request", "transaction_statement", ""},
	{"CREATE TEMP TABLE orders(a)", "temp_not_allowed", ""},
	{"CREATE TABLE temp.fresh(a)", "temp_not_allowed", ""},
	{"CREATE TEMP VIEW fresh AS SELECT * FROM secret", "temp_not_allowed", ""},
	{"CREATE TEMP TRIGGER x AFTER INSERT ON orders BEGIN SELECT 1; END", "temp_not_allowed", ""},
	{"SELECT * FROM sqlite_temp_schema", "temp_not_allowed", ""},
	{"SELECT load_extension('/lib/x.so')", "function_not_allowed", ""},
	{"SELECT sqlite_log(1, 'x')", "function_not_allowed", ""},
	{"SELECT rtreecheck('boxes')", "function_not_allowed", ""},
	{"SELECT geopoly_debug(1)", "function_not_allowed", ""},
	{"SELECT hex(fts5(NULL))", "function_not_allowed", ""},
	{"CREATE VIRTUAL TABLE fresh USING dbstat", "module_not_allowed", ""},
	{"CREATE VIRTUAL TABLE fresh USING sqlite_dbpage", "module_not_allowed", ""},
	{"SELECT * FROM dbstat", "system_object", ""},
	{"SELECT data FROM sqlite_dbpage", "system_object", ""},
	{"UPDATE sqlite_dbpage SET data = zeroblob(4096)", "system_object", ""},
	{"CREATE TABLE _persql_mine(a)", "system_object", ""},
	{"CREATE VIEW _PERSQL_mine AS SELECT 1", "system_object", ""},
	{"CREATE INDEX _persql_i ON orders(total)", "system_object", ""},
	{"CREATE TABLE pragma_table_list(schema, name, type)", "system_object", ""},
	{"CREATE VIEW Pragma_notes AS SELECT 1", "system_object", ""},
	{"CREATE TABLE dbstat(a)", "system_object", ""},
	{"PRAGMA journal_mode = DELETE", "pragma_not_allowed", ""},
	{"PRAGMA writable_schema = ON", "pragma_not_allowed", ""},
	{"PRAGMA foreign_keys = OFF", "pragma_not_allowed", ""},
	{"PRAGMA page_size = 512", "pragma_not_allowed", ""},
	{"PRAGMA trusted_schema", "pragma_not_allowed", ""},
	{"PRAGMA temp_store_directory = '/tmp'", "pragma_not_allowed", ""},
	{"SELECT * FROM pragma_journal_mode", "pragma_not_allowed", ""},
	{"SELECT * FROM pragma_module_list", "pragma_not_allowed", ""},
}

const contentOfGuarded = `SELECT (SELECT group_concat(sql, ';') FROM sqlite_schema) || (SELECT json_group_array(json_array(id, customer, total)) FROM orders) ||
	(SELECT json_group_array(json_array(id, name, card)) FROM customers) || (SELECT json_group_array(hidden) FROM secret) || (SELECT count(*) FROM audit) ||
	(SELECT json_group_array(name) FROM items) || (SELECT count(*) FROM parts) || (SELECT json_group_array(ord) FROM lines) || (SELECT count(*) FROM payments) ||
	(SELECT count(*) FROM tasks) || (SELECT count(*) FROM logs) || (SELECT json_group_array(n) FROM counters) || (SELECT json_group_array(body) FROM pages) || (SELECT count(*) FROM boxes)`

var levels = map[string]int{"read": 1, "readonly": 1, "write": 2, "readwrite": 2, "admin": 3}

// attacker is a caller of the attacks.
type attacker struct {
	role   string
	scoped bool
	pinned bool
}

// verdict is the code that the specification refuses a statement to the caller with, "" for none.
func (who attacker) verdict(role, tables string) string {
	level, known := levels[role]
	switch {
	case !known:
		return role
	case levels[who.role] < level:
		return "role_not_allowed"
	case who.scoped:
		for _, table := range strings.Fields(tables) {
			if !slices.Contains(inScope, table) {
				return "scope_not_allowed"
			}
		}
	}
	return ""
}

// attack sends all statements as the caller and returns what is not as the specification has it, but no more than enough of it.
// Whatever is let in is undone.
func (who attacker) attack(admin *harness.Client, d *harness.DB, enough int) (wrong []string) {
	request := body{"name": "attack", "role": who.role}
	if who.scoped {
		request["tableScope"] = inScope
	}
	if who.pinned {
		request["database"] = d.Slug
	}
	c := admin.As(mint(admin, request)).DB(d.Slug)
	content := d.One(contentOfGuarded)
	fail := func(sql, what string, a *harness.Answer) {
		wrong = append(wrong, fmt.Sprintf("%s: %s: %d %s", sql, what, a.Status, harness.Tail(string(a.Raw), 400)))
	}
	for _, at := range attacks {
		if len(wrong) >= enough {
			break
		}
		want := who.verdict(at.role, at.tables)
		if want == "" { // run, and undone by what follows it
			a := c.Batch(true, at.sql, "SELECT * FROM no_such_table_at_all")
			if a.Status != http.StatusBadRequest || harness.Text(a.At("errorDetail.statementIndex")) != "1" {
				fail(at.sql, "refused", a)
			}
			continue
		}
		status := http.StatusForbidden
		if want == "transaction_statement" {
			status = http.StatusBadRequest
		}
		a := c.Query(at.sql)
		if a.Status != status || a.Str("code") != want {
			fail(at.sql, "want "+want, a)
			continue
		}
		switch said := a.Str("error"); {
		case want == "role_not_allowed" && (!strings.HasPrefix(said, fmt.Sprintf("Token role %q cannot run ", who.role)) || a.Str("hint") == "" || a.Str("errorDetail.kind") != "readonly"),
			want == "scope_not_allowed" && !strings.HasPrefix(said, "Token scope does not include "):
			fail(at.sql, "other words", a)
		}
		a = c.Batch(true, "SELECT 1", at.sql)
		if a.Status != status || harness.Text(a.At("errorDetail.statementIndex")) != "1" {
			fail(at.sql, "in a batch", a)
		}
		if got := d.One(contentOfGuarded); got != content {
			fail(at.sql, "changed the content to "+got, a)
			content = got
		}
	}
	return wrong
}

func TestWhoMayRunWhat(t *testing.T) {
	row(t, "DP-TOK-4", "DP-TOK-5", "DP-TOK-6", "DP-TOK-7", "DP-TOK-14")
	admin := client(t)
	d := admin.DB(unused())
	guard(d)
	if len(attacks) < 150 {
		t.Errorf("%d statements only", len(attacks))
	}
	into := "VACUUM INTO '" + filepath.Join(t.TempDir(), "stolen.db") + "'"
	d.Query(into).Fails(http.StatusForbidden, "attach_not_allowed")
	for _, sql := range []string{"VACUUM", "VACUUM main", into} {
		for role, code := range map[string]string{"write": "role_not_allowed", "read": "role_not_allowed"} {
			admin.As(mint(admin, body{"role": role})).DB(d.Slug).Query(sql).Fails(http.StatusForbidden, code)
		}
		admin.As(mint(admin, body{"tableScope": inScope})).DB(d.Slug).Query(sql).Fails(http.StatusForbidden, "scope_not_allowed")
	}
	for _, who := range []attacker{{role: "admin"}, {role: "readwrite"}, {role: "write"}, {role: "readonly"}, {role: "read"}, {role: "write", pinned: true},
		{role: "admin", scoped: true}, {role: "admin", scoped: true, pinned: true}, {role: "write", scoped: true}, {role: "readonly", scoped: true}} {
		t.Run(fmt.Sprintf("%+v", who), func(t *testing.T) {
			for _, wrong := range who.attack(admin.With(t), admin.With(t).DB(d.Slug), 20) {
				t.Error(wrong)
			}
		})
	}
}

// mutant is the program whose checks can be left out.
var mutant = sync.OnceValues(func() (string, error) {
	return harness.Build(context.Background(), filepath.Join(shared.dir, "mutant"), "gatemutation")
})

func mutated(t *testing.T) string {
	bin, err := mutant()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// TestEveryCheckIsMissed leaves out each check of the gate in turn: the attacks must notice.
func TestEveryCheckIsMissed(t *testing.T) {
	bin := mutated(t)
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(filepath.Join(root, "internal/gate/mutation_on.go"))
	if err != nil {
		t.Fatal(err)
	}
	list := regexp.MustCompile(`(?s)Checks = \[\]string\{(.*?)\}`).FindSubmatch(source)
	if list == nil {
		t.Fatal("no list of checks")
	}
	var checks []string
	for _, m := range regexp.MustCompile(`"([^"]+)"`).FindAllSubmatch(list[1], -1) {
		checks = append(checks, string(m[1]))
	}
	for _, check := range append([]string{""}, checks...) {
		t.Run(check, func(t *testing.T) {
			s := harness.Start(t, bin, harness.Options{Env: []string{"GATE_OFF=" + check, "PERSQLD_MAX_APPROVALS=1000000"}})
			admin := s.Client(t, harness.Token).Apart()
			d := admin.DB("shop")
			guard(d)
			noticed := 0
			if strings.HasPrefix(check, "rule") { // the others would look long for what only these find
				noticed += len(misjudged(admin, 1, t.Logf))
			}
			for _, who := range []attacker{{role: "readonly"}, {role: "admin", scoped: true}} {
				if noticed > 0 {
					break // the content may not be what it was
				}
				noticed += len(who.attack(admin, d, 1))
			}
			if noticed == 0 {
				d := admin.DB("ruled")
				rule(d)
				noticed += len(bounded{role: "admin"}.bind(admin, d, 1))
			}
			if noticed == 0 {
				noticed += len(misjudged(admin, 1, t.Logf))
			}
			if (noticed > 0) != (check != "") {
				t.Errorf("%d attacks notice", noticed)
			}
		})
	}
}

// A virtual table takes tables for its own by their names: not those that are there already.
func TestVirtualTablesTakeNoOthers(t *testing.T) {
	row(t, "DP-D-25")
	d := client(t).DB(unused())
	d.Batch(true, "CREATE TABLE users_content(v)", "INSERT INTO users_content VALUES('kept')", "CREATE TABLE acc_docsize(v)", "CREATE VIRTUAL TABLE pages USING fts5(a, content='', columnsize=0)").OK()
	d.Query("CREATE VIRTUAL TABLE users USING fts5(a, content='')").Fails(http.StatusForbidden, "system_object").Tells("users_content")
	d.Query("ALTER TABLE pages RENAME TO acc").Fails(http.StatusForbidden, "system_object").Tells("acc_docsize")
	d.Batch(true, "INSERT INTO users_content VALUES('more')", "INSERT INTO acc_docsize VALUES(1)", "ALTER TABLE pages RENAME TO book", "CREATE VIRTUAL TABLE users2 USING fts5(a)", "INSERT INTO users2 VALUES('x')").OK()
	if got := d.One("SELECT group_concat(v) FROM users_content"); got != "kept,more" {
		t.Errorf("users_content: %s", got)
	}
	d.Query("SELECT * FROM pragma_table_info(printf('%.*c', 1000000, 'x'))").Fails(http.StatusBadRequest, "sql_error")
	d.Query("ALTER TABLE users_content RENAME TO pragma_table_list").Fails(http.StatusForbidden, "system_object")
	d.Query("ALTER TABLE users_content RENAME TO dbstat").Fails(http.StatusForbidden, "system_object")
	d.Query("ALTER TABLE users_content RENAME TO _persql_x").Fails(http.StatusForbidden, "system_object")
}
