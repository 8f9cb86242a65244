//go:build rowmeterproof

package sqlite

import (
	"unsafe"

	sqlite3 "modernc.org/sqlite/lib"
)

// Oracle counts rows by the rules alone, from the opcodes that ran: it knows nothing of where the meter's additions are.
type Oracle struct {
	Read, Written int64
	Ran           map[string]int // opcodes, by name

	stmt  uintptr
	last  step
	kinds map[uintptr]bool // by the place of a cursor's pointer: whether only the statement sees what it is on
}

// step is an opcode whose outcome is known when the next one runs.
type step struct {
	op        sqlite3.TVdbeOp
	at, start uintptr // its place, and that of its program
	registers uintptr
	cursor    uintptr // of Next
	changes   int64
	some      bool
}

// Watch has the statement's opcodes counted until Unwatch. Statements that run inside it, of virtual tables, are not.
func (o *Oracle) Watch(s *Stmt) {
	*o = Oracle{stmt: s.ptr, kinds: make(map[uintptr]bool), Ran: make(map[string]int)}
	sqlite3.MeterWatch = o.ran
}

func (o *Oracle) Unwatch() { sqlite3.MeterWatch = nil }

// names are those of the opcodes that count.
var names = map[int32]string{
	sqlite3.OP_SeekLT: "SeekLT", sqlite3.OP_SeekLE: "SeekLE", sqlite3.OP_SeekGE: "SeekGE", sqlite3.OP_SeekGT: "SeekGT",
	sqlite3.OP_SeekRowid: "SeekRowid", sqlite3.OP_NotExists: "NotExists", sqlite3.OP_Last: "Last", sqlite3.OP_Rewind: "Rewind",
	sqlite3.OP_Sort: "Sort", sqlite3.OP_SorterSort: "SorterSort", sqlite3.OP_Next: "Next", sqlite3.OP_Prev: "Prev",
	sqlite3.OP_SorterNext: "SorterNext", sqlite3.OP_VNext: "VNext", sqlite3.OP_Count: "Count", sqlite3.OP_Insert: "Insert",
	sqlite3.OP_IdxInsert: "IdxInsert", sqlite3.OP_Delete: "Delete", sqlite3.OP_Clear: "Clear", sqlite3.OP_VUpdate: "VUpdate",
}

func (o *Oracle) ran(stmt, place, registers uintptr) {
	if stmt != o.stmt {
		return
	}
	v := (*sqlite3.TVdbe)(at(stmt))
	op := *(*sqlite3.TVdbeOp)(at(place))
	o.settle(place, v.FnChange)
	o.last = step{op, place, v.FaOp, registers, 0, v.FnChange, true}
	code := int32(op.Fopcode)
	if name := names[code]; name != "" {
		o.Ran[name]++
	}
	cursor := v.FapCsr + uintptr(op.Fp1)*unsafe.Sizeof(uintptr(0))
	switch code {
	case sqlite3.OP_SeekLT, sqlite3.OP_SeekLE, sqlite3.OP_SeekGE, sqlite3.OP_SeekGT, sqlite3.OP_SeekRowid, sqlite3.OP_NotExists,
		sqlite3.OP_Last, sqlite3.OP_Rewind, sqlite3.OP_Sort, sqlite3.OP_SorterSort:
		o.Read++
	case sqlite3.OP_Next:
		o.last.cursor = *(*uintptr)(at(cursor))
	case sqlite3.OP_VNext:
		if (*sqlite3.TVdbeCursor)(at(*(*uintptr)(at(cursor)))).FnullRow == 0 {
			o.Read++
		}
	case sqlite3.OP_OpenEphemeral, sqlite3.OP_OpenAutoindex, sqlite3.OP_OpenDup:
		o.kinds[cursor] = true
	case sqlite3.OP_OpenRead, sqlite3.OP_OpenWrite, sqlite3.OP_ReopenIdx:
		o.kinds[cursor] = false
	case sqlite3.OP_Insert:
		if op.Fp5&sqlite3.OPFLAG_ISNOOP == 0 && !o.kinds[cursor] {
			o.Written++
		}
	case sqlite3.OP_IdxInsert:
		if !o.kinds[cursor] {
			o.Written++
		}
	}
}

// settle counts what the last opcode did, now that the machine is at another.
func (o *Oracle) settle(next uintptr, changes int64) {
	l := &o.last
	if !l.some {
		return
	}
	switch int32(l.op.Fopcode) {
	case sqlite3.OP_Next, sqlite3.OP_Prev, sqlite3.OP_SorterNext:
		// It went to the row's code. Where that is the next opcode, the cursor has to tell.
		jump := l.start + uintptr(l.op.Fp2)*unsafe.Sizeof(l.op)
		if next == jump && (jump != l.at+unsafe.Sizeof(l.op) || (*sqlite3.TVdbeCursor)(at(l.cursor)).FnullRow == 0) {
			o.Read++
		}
	case sqlite3.OP_Count:
		if l.op.Fp3 == 0 {
			m := (*sqlite3.TMem)(at(l.registers + uintptr(l.op.Fp2)*unsafe.Sizeof(sqlite3.TMem{})))
			o.Read += *(*int64)(unsafe.Pointer(&m.Fu))
		}
	case sqlite3.OP_Delete:
		if l.op.Fp2&sqlite3.OPFLAG_ISNOOP == 0 && l.op.Fp2&sqlite3.OPFLAG_NCHANGE != 0 {
			o.Written++
		}
	case sqlite3.OP_Clear, sqlite3.OP_VUpdate:
		o.Written += changes - l.changes
	}
}

// MeterAnchors are the names of MeterOff's bits, from the first.
func MeterAnchors() []string { return sqlite3.MeterAnchors }

// MeterOff takes away the anchors whose bits are set.
func MeterOff(bits uint64) { sqlite3.MeterOff = bits }

// Spoil leaves numbers in the statement's meter that no run has counted.
func (s *Stmt) Spoil() { *sqlite3.MeterOf(s.ptr) = sqlite3.Meter{Read: 1 << 40, Written: 1 << 40} }

// Room is how much memory the statement's struct has, and how much it needs. Zero: SQLite didn't take it from the heap.
func (s *Stmt) Room() (has, needs uint64) {
	return sqlite3.Xsqlite3_msize(s.conn.thread.tls, s.ptr), uint64(unsafe.Sizeof(sqlite3.TVdbe{}))
}
