package sqlite

import (
	"bytes"

	sqlite3 "modernc.org/sqlite/lib"
)

// list is a doubly linked list of statements. A statement is in one at most.
type list struct{ head, tail *Stmt }

func (l *list) push(s *Stmt) {
	s.prev, s.next = nil, l.head
	if l.head != nil {
		l.head.prev = s
	}
	l.head = s
	if l.tail == nil {
		l.tail = s
	}
}

func (l *list) unlink(s *Stmt) {
	if s.prev != nil {
		s.prev.next = s.next
	} else {
		l.head = s.next
	}
	if s.next != nil {
		s.next.prev = s.prev
	} else {
		l.tail = s.prev
	}
	s.prev, s.next = nil, nil
}

// cache keeps compiled statements by their text, the most recently used first. A cached statement costs 1.8 µs a
// run, a compiled one 11 µs. It is dropped whole at every change of the schema or of a hook, since both may change
// what a statement compiles to.
type cache struct {
	list
	stmts map[string]*Stmt // of clients
	owns  map[string]*Stmt // the server's: a client that sends the same text must not get one that nobody judged
	max   int
	bytes int
}

func (k *cache) init(max int) { k.max = max }

func (k *cache) of(own bool) map[string]*Stmt {
	if own {
		return k.owns
	}
	return k.stmts
}

func (k *cache) remove(s *Stmt) {
	delete(k.of(s.own), s.sql)
	k.unlink(s)
	k.bytes -= len(s.sql)
	s.cached = false
	if s.busy {
		s.conn.loose.push(s)
	}
}

// add keeps s and makes room for it among the statements that are not in use. It tells whether it did.
func (k *cache) add(s *Stmt) bool {
	if len(s.sql) > cacheBytes/4 {
		return false
	}
	if k.stmts == nil {
		k.stmts, k.owns = make(map[string]*Stmt, 4), make(map[string]*Stmt, 4)
	}
	k.of(s.own)[s.sql] = s
	k.push(s)
	k.bytes += len(s.sql)
	s.cached = true
	for old := k.tail; old != nil && (len(k.stmts)+len(k.owns) > k.max || k.bytes > cacheBytes); {
		prev := old.prev
		if !old.busy {
			k.remove(old)
			old.finalize()
		}
		old = prev
	}
	return true
}

// find is the client's statement with that text, or nil. A batch repeats its last one: to compare is cheaper than to hash.
func (k *cache) find(sql []byte) *Stmt {
	if s := k.head; s != nil && !s.own && s.sql == string(sql) {
		return s
	}
	return k.stmts[string(sql)]
}

// Prepare compiles the first statement of sql under a policy and tells how many bytes it took: what follows is the
// tail, as SQLite's parser sees it. A text of white space and comments alone compiles to nil. The statement is the
// caller's until Done. The policy is asked about a statement out of the cache too: another caller's may have let it in.
func (c *Conn) Prepare(sql []byte, policy Policy) (s *Stmt, n int, err error) {
	if s := c.cache.find(sql); s != nil && !s.busy {
		if policy != nil {
			for i := range s.Accesses {
				if err := policy(s.Accesses[i]); err != nil {
					return nil, 0, &Error{Code: CodeAuth, Message: "not authorized", Offset: -1, Cause: err}
				}
			}
		}
		s.policy = policy // what runs inside it is this caller's to be judged
		c.take(s)
		return s, len(sql), nil
	}
	return c.compile(sql, policy, byClient)
}

// Own compiles a statement of the server's, which no policy judges.
func (c *Conn) Own(sql string) (*Stmt, error) { return c.own(sql, byServer) }

// System is Own for a statement on the server's own tables in the file, whatever foreign keys a client has put on them.
func (c *Conn) System(sql string) (*Stmt, error) { return c.own(sql, bySystem) }

// author is whose statement it is.
type author uint8

const (
	byClient author = iota
	byServer
	bySystem // the server's, on its own tables
	bare     // the server's, on clients' tables, without what hangs on them
)

// flagForeignKeys is SQLite's own name for PRAGMA foreign_keys among a connection's flags (SQLITE_ForeignKeys).
const flagForeignKeys = 0x4000

// flagTriggers is SQLITE_EnableTrigger: what is compiled without it has no triggers.
const flagTriggers = 0x40000

// Bare is Own for a statement that changes rows and nothing else: no trigger fires, and foreign keys are neither looked at nor act. It is never kept, or
// it would be another's.
func (c *Conn) Bare(sql string) (*Stmt, error) {
	s, _, err := c.compile([]byte(sql), nil, bare)
	return s, err
}

// barely runs f with triggers and foreign keys off.
func (c *Conn) barely(f func()) {
	db := (*sqlite3.Tsqlite3)(at(c.db))
	on := db.Fflags & (flagForeignKeys | flagTriggers)
	db.Fflags &^= on
	defer func() { db.Fflags |= on }()
	f()
}

func (c *Conn) own(sql string, by author) (*Stmt, error) {
	if s := c.cache.owns[sql]; s != nil && !s.busy {
		c.take(s)
		return s, nil
	}
	s, _, err := c.compile([]byte(sql), nil, by)
	return s, err
}

func (c *Conn) take(s *Stmt) {
	s.busy, s.thread = true, c.thread
	s.thread.hold()
	s.forgetCost() // whoever had it last need not have asked
	if c.cache.head != s {
		c.cache.unlink(s)
		c.cache.push(s)
	}
}

func (c *Conn) compile(sql []byte, policy Policy, by author) (*Stmt, int, error) {
	own := by != byClient
	if c.db == 0 || c.damaged {
		return nil, 0, errClosed()
	}
	was := c.mode
	defer func() { c.mode = was }()
	if own {
		c.mode = modeOwn
	} else {
		c.mode = modePrepare
		c.collect.begin(policy, c.thread)
	}
	db := (*sqlite3.Tsqlite3)(at(c.db))
	if by == bySystem {
		// A client's foreign key that refers to one of the server's own tables, which no parser forbids, must not reach
		// what the server does there.
		on := db.Fflags & flagForeignKeys
		db.Fflags &^= flagForeignKeys
		defer func() { db.Fflags |= on }()
	}
	// A pragma that switches something acts while it is compiled, under EXPLAIN too. A client's shall act when it runs.
	flags := db.Fflags
	var (
		ptr uintptr
		n   int
		err error
	)
	if by == bare {
		c.barely(func() { ptr, n, err = c.prepare(sql) })
	} else {
		ptr, n, err = c.prepare(sql)
	}
	switched := db.Fflags ^ flags
	if own || !c.collect.hasPragma() {
		switched = 0
	}
	values := db.Fflags & switched
	db.Fflags ^= switched
	if ptr == 0 {
		return nil, n, err
	}
	s := &Stmt{conn: c, ptr: ptr, sql: string(sql[:n]), own: own, busy: true, policy: policy, thread: c.thread, bare: by == bare}
	if !own {
		err := c.addOpened(s) // first: a virtual table that nothing but USING names reads others, too
		if err == nil {
			err = c.gather(s)
		}
		if err != nil {
			sqlite3.Xsqlite3_finalize(c.thread.tls, ptr)
			return nil, 0, err
		}
		s.Accesses = c.collect.end(c.thread)
	}
	s.examine()
	if !s.Explain {
		s.switched, s.values = switched, values
	}
	s.thread.hold()
	// Kept only if the text is this one statement whole, so that a look-up answers for the tail too, and if
	// nobody else keeps that text (it may be in use: a nested run of the same statement). Not if a policy left
	// something out of it: another would be given what does nothing.
	if n != len(sql) || !own && c.collect.ignored || s.Alters || s.bare || c.opening || c.cache.of(own)[s.sql] != nil || !c.cache.add(s) {
		c.loose.push(s)
	}
	return s, n, nil
}

// AccessesWithoutForeignKeys is what the statement would touch if nothing enforced foreign keys: what is in Accesses alone is
// a look at the other side of a key, or an action of one.
func (s *Stmt) AccessesWithoutForeignKeys() ([]Access, error) {
	db := (*sqlite3.Tsqlite3)(at(s.conn.db))
	on := db.Fflags & flagForeignKeys
	db.Fflags &^= flagForeignKeys
	defer func() { db.Fflags |= on }()
	return s.AccessesOf(s.sql)
}

// AccessesOf is what another statement would touch, on the same connection. It must not be a pragma: SQLite carries some out while it
// compiles them.
func (s *Stmt) AccessesOf(sql string) ([]Access, error) {
	c := s.conn
	was := c.mode
	defer func() { c.mode = was }()
	c.mode = modePrepare
	c.collect.begin(nil, c.thread)
	ptr, _, err := c.prepare([]byte(sql))
	if err != nil {
		return nil, err
	}
	defer sqlite3.Xsqlite3_finalize(c.thread.tls, ptr)
	thrown := &Stmt{conn: c, ptr: ptr, sql: sql, thread: c.thread}
	if err := c.addOpened(thrown); err != nil {
		return nil, err
	}
	if err := c.gather(thrown); err != nil {
		return nil, err
	}
	return c.collect.end(c.thread), nil
}

// Look runs one of the server's own queries on the statement's connection, with one parameter, and hands row its rows.
func (s *Stmt) Look(sql, param string, row func(*Stmt)) error {
	q, err := s.conn.Own(sql)
	if err != nil {
		return err
	}
	defer q.Done()
	if err := q.Bind([]Param{{Value: Value{Kind: Text, Bytes: []byte(param)}}}); err != nil {
		return err
	}
	for {
		more, err := q.Step()
		if err != nil || !more {
			return err
		}
		row(q)
	}
}

// prepare is SQLite's: the statement, 0 if there is none, and the length of its text. SQLite keeps a copy of the text.
func (c *Conn) prepare(sql []byte) (ptr uintptr, n int, err error) {
	t := c.thread
	used, spilled := t.mark()
	defer t.rewind(used, spilled)
	text := t.place(sql)
	if text == 0 {
		return 0, 0, noMemory()
	}
	// SQLite takes a zero byte for the end of the text and would run what stands before it.
	zero := bytes.IndexByte(sql, 0)
	c.denied, c.stopped, c.began = nil, nil, true
	rc := sqlite3.Xsqlite3_prepare_v3(t.tls, c.db, text, int32(len(sql)), sqlite3.SQLITE_PREPARE_PERSISTENT, t.out, t.out+8)
	if rc != sqlite3.SQLITE_OK {
		return 0, 0, c.fail(rc)
	}
	c.denied = nil
	ptr, n = *(*uintptr)(at(t.out)), int(*(*uintptr)(at(t.out + 8))-text)
	if n == zero && (ptr == 0 || sql[n-1] != ';') {
		sqlite3.Xsqlite3_finalize(t.tls, ptr)
		return 0, 0, &Error{Code: CodeError, Message: "unrecognized token: a zero byte", Offset: zero}
	}
	return ptr, n, nil
}

// DropStatements finalizes every cached statement. Those in use go when they are done.
func (c *Conn) DropStatements() {
	for s := c.cache.head; s != nil; {
		next := s.next
		c.cache.remove(s)
		if !s.busy {
			s.finalize()
		}
		s = next
	}
	c.cache.stmts, c.cache.owns = nil, nil
}

// Altered tells whether a statement that may change the schema ran since the last call: after a rollback the
// statements compiled in between are to be dropped too.
func (c *Conn) Altered() bool {
	was := c.altered
	c.altered = false
	return was
}
