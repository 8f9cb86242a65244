package history

// Due is due, for tests.
func (h *History) Due(id string, p Policy) (bool, error) { return h.due(id, p) }
