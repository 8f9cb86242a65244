package main

import (
	"errors"
	"fmt"
	"strings"
)

// anchor is a short piece of the library's generated code, and what is put there. What is added stays on the line that
// it is added to: traces of the stack and the profile that the server is built by go on naming the right lines.
type anchor struct {
	name string
	in   string // how the declaration begins that holds it, or a file's one line
	find string // the piece, with ¦ where put goes; a piece without ¦ is replaced by put
	put  string // nothing: the piece must only be there
}

// times is how often each anchor's piece must be in its declaration.
const times = 1

const (
	machine = "func _sqlite3VdbeExec("
	create  = "func _sqlite3VdbeCreate("
	swap    = "func _sqlite3VdbeSwap("

	read    = "(*TVdbe)(unsafe.Pointer(p)).Fmeter.Read"
	written = "(*TVdbe)(unsafe.Pointer(p)).Fmeter.Written"
)

// dispatched counts a row where the machine goes to an opcode's code. It does that once for each time that a program
// runs the opcode, whatever other opcodes share the code or fall into it.
func dispatched(opcode string) anchor {
	return anchor{name: opcode, in: machine, find: "case int32(OP_" + opcode + "):\n\t\t\t¦goto _", put: read + "++"}
}

// lasting counts a row where the cursor is not one that only this statement sees; that is the first bit of the flags.
func lasting(cursor string) string {
	return "if *(*uint8)(unsafe.Pointer(" + cursor + " + 8))&1 == 0 { " + written + "++ }"
}

// anchors are all that the meter needs. The first ones count, and each has a row in the table of expectations that
// fails without it; the tests know them by their order.
var anchors = []anchor{
	dispatched("SeekLT"),
	dispatched("SeekLE"),
	dispatched("SeekGE"),
	dispatched("SeekGT"),
	dispatched("SeekRowid"),
	dispatched("NotExists"),
	dispatched("Last"),
	dispatched("Rewind"),
	dispatched("Sort"),
	dispatched("SorterSort"),
	// Next, Prev and SorterNext end here when there is a row.
	{"Next", machine, "¦(*TVdbeCursor)(unsafe.Pointer(pC23)).FnullRow = uint8(0)", read + "++"},
	// A cursor that an outer join has set to no row isn't moved.
	{"VNext", machine, "¦pVtab5 = (*Tsqlite3_vtab_cursor)(", read + "++"},
	{"Count", machine, "_sqlite3BtreeCount(tls, db, pCrsr1, bp+120)¦", read + " += uint64(**(**Ti64)(__ccgo_up(bp + 120)))"},
	{"Insert", machine, "¦(**(**TBtreePayload)(__ccgo_up(bp + 352))).FpData = ", lasting("pC12")},
	{"IdxInsert", machine, "¦(**(**TBtreePayload)(__ccgo_up(bp + 432))).FnKey = ", lasting("pC24")},
	{"Delete", machine, "if opflags&int32(OPFLAG_NCHANGE) != 0 {¦", written + "++"},
	{"Clear", machine, "¦**(**Ti64)(__ccgo_up(p + 56)) += **(**Ti64)(__ccgo_up(bp + 640))", written + " += uint64(**(**Ti64)(__ccgo_up(bp + 640)))"},
	// An update that a constraint stopped, or that OR IGNORE passed over, wrote nothing.
	{"VUpdate", machine, "FerrorAction = libc.Uint8FromInt32(v189)\n\t\t\t\t}\n\t\t\t} else {¦", written + "++"},
	// A program that SQLite compiles anew while it runs goes on with what the old one had counted.
	{"swap", swap, "¦(*TVdbe)(unsafe.Pointer(pB)).FprepFlags = ", "(*TVdbe)(unsafe.Pointer(pB)).Fmeter = (*TVdbe)(unsafe.Pointer(pA)).Fmeter"},
	{"zeros", create, "libc.Uint64FromInt64(312)", statementSize},
	{"size", create, "uint64(312)", statementSize},

	{"struct", "type TVdbe = struct {", "\tFpAuxData           uintptr¦\n}", "Fmeter Meter"},
	{"ephemeral table", machine, "libc.SetBitFieldPtr8Uint32(pCx1+8, libc.Uint32FromInt32(1), 0, 0x1)", ""},
	{"copy of an ephemeral table", machine, "libc.SetBitFieldPtr8Uint32(pCx+8, libc.Uint32FromInt32(1), 0, 0x1)", ""},
}

const (
	statementSize = "uint64(unsafe.Sizeof(TVdbe{}))"

	counting = 21 // anchors before "struct"
)

// watch is one more anchor of the proof: it tells the tests each opcode that runs.
var watch = anchor{"watch", machine, "nVmStep = nVmStep + 1¦", "if MeterWatch != nil { MeterWatch(p, pOp, aMem) }"}

// proving is anchor i as the proof has it: a bit of MeterOff takes it away while the program runs.
func proving(i int) anchor {
	a := anchors[i]
	switch {
	case i >= counting:
	case a.put == statementSize:
		a.put = fmt.Sprintf("meterSize(%d)", i)
	default:
		a.put = fmt.Sprintf("if MeterOff&(1<<%d) == 0 { %s }", i, a.put)
	}
	return a
}

var errAnchor = errors.New("the library's code is not the one that this was written for")

// apply puts the anchor into the text of its declaration.
func (a anchor) apply(decl string) (string, error) {
	before, after, inserts := strings.Cut(a.find, "¦")
	if n := strings.Count(decl, before+after); n != times {
		return "", fmt.Errorf("anchor %q is %d times in %q, not %d times: %w", a.name, n, a.in, times, errAnchor)
	}
	switch {
	case a.put == "":
		return decl, nil
	case !inserts:
		return strings.Replace(decl, a.find, a.put, 1), nil
	case strings.HasPrefix(after, "\n"), after == "":
		// Behind what is there: a statement, a field, or the brace that begins a block.
		sep := "; "
		if strings.HasSuffix(before, "{") {
			sep = " "
		}
		return strings.Replace(decl, before+after, before+sep+a.put+after, 1), nil
	}
	return strings.Replace(decl, before+after, before+a.put+"; "+after, 1), nil
}
