package feed

// Still makes a database's topic without the goroutine that tells what is put down; Round does it once.
func (h *Hub) Still(database string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.topics[database] = &topic{database: database, much: h.opt.RingBytes, quit: make(chan struct{})}
}

// Round tells a still topic's listeners what was put down.
func (h *Hub) Round(database string) {
	h.mu.RLock()
	t := h.topics[database]
	users := t.users
	h.mu.RUnlock()
	h.round(t, users)
}
