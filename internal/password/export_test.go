package password

import "context"

// Turn takes a turn, as a hashing does.
func (h *Hasher) Turn(ctx context.Context) (end func(), err error) { return h.turn(ctx) }
