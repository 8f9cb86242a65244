package store

import (
	"strings"
	"testing"
)

// Turns go round by namespace, and within one in the order of coming.
func TestTurnsGoRoundByNamespace(t *testing.T) {
	turns := newTurns(1)
	if w, ok := turns.take("z"); w != nil || !ok {
		t.Fatal("the first gets no turn")
	}
	names := map[*waiter]string{}
	for _, name := range []string{"a1", "a2", "a3", "b1", "c1", "a4"} {
		w, ok := turns.take(name[:1])
		if !ok || w == nil {
			t.Fatalf("%s does not wait", name)
		}
		names[w] = name
	}
	var order []string
	granted := func() *waiter {
		for w := range names {
			select {
			case <-w.granted:
				order = append(order, names[w])
				return w
			default:
			}
		}
		return nil
	}
	for len(names) > 0 {
		turns.give()
		w := granted()
		if w == nil {
			t.Fatalf("nobody has the turn after %v", order)
		}
		delete(names, w)
	}
	if got, want := strings.Join(order, " "), "a1 b1 c1 a2 a3 a4"; got != want {
		t.Errorf("order %s, want %s", got, want)
	}
	turns.give()
	if turns.running != 0 || turns.parked != 0 || len(turns.parties) != 0 || len(turns.ring) != 0 {
		t.Errorf("left over: %+v", turns)
	}
}

// One of a crowd and a lone one alternate.
func TestTurnsAlternate(t *testing.T) {
	turns := newTurns(1)
	turns.take("crowd")
	for range 10 {
		turns.take("crowd")
	}
	lone, _ := turns.take("lone")
	mine := 0
	for range 20 {
		select {
		case <-lone.granted:
			mine++
			lone = turns.swap("lone")
		default:
			turns.swap("crowd") // whoever has the turn of the crowd's gives it back
		}
	}
	if mine < 9 {
		t.Errorf("the lone one had %d turns of 20", mine)
	}
}

func TestTurnsLeaveAndLimit(t *testing.T) {
	turns := newTurns(1)
	turns.take("a")
	b, _ := turns.take("b")
	c, _ := turns.take("c")
	if !turns.leave(b) {
		t.Error("who left had the turn")
	}
	turns.give()
	select {
	case <-c.granted:
	default:
		t.Error("the turn went to one who left")
	}
	if turns.leave(c) {
		t.Error("one who has the turn left without it")
	}
	turns.give()
	if w, ok := turns.take("d"); w != nil || !ok {
		t.Error("the turn was lost")
	}
	for range maxParked {
		if _, ok := turns.take("e"); !ok {
			t.Fatal("too early")
		}
	}
	if _, ok := turns.take("e"); ok {
		t.Error("more wait than may")
	}
	if w := turns.swap("d"); w == nil {
		t.Error("a full house ends nobody's turn")
	}
}
