package replica

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"

	"github.com/superfly/ltx"
)

// The state file tells the next start which databases needn't be looked at. It is no authority: what it doesn't have, or has wrongly low, is listed.
type state struct {
	Server  string              `json:"server"`
	Shipped map[string]ltx.TXID `json:"shipped"`
}

func (s *Shipper) loadState() {
	b, err := os.ReadFile(s.opt.State)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			s.log.Warn("read what was shipped to the replica; all is looked for", "error", err)
		}
		return
	}
	var st state
	if err := json.Unmarshal(b, &st); err != nil || st.Server != s.opt.Server {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, last := range st.Shipped {
		s.shipped[id] = last
	}
}

func (s *Shipper) saveState() {
	s.mu.Lock()
	if s.saved {
		s.mu.Unlock()
		return
	}
	s.saved = true
	b, err := json.Marshal(state{s.opt.Server, s.shipped})
	s.mu.Unlock()
	if err == nil {
		tmp := s.opt.State + ".tmp"
		if err = os.WriteFile(tmp, b, 0o600); err == nil {
			err = os.Rename(tmp, s.opt.State)
		}
	}
	if err != nil {
		s.log.Warn("remember what was shipped to the replica; the next start looks for it", "error", err)
	}
}
