package webhook

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/feed"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
)

// group is what a message tells of: the changes of one kind in one table, of one commit.
type group struct {
	table       string
	kind        store.ChangeKind
	first, last int64
	changes     int
}

// wants tells whether a webhook is told of a kind. That nobody knows which rows changed, and how, is for all who want to know of rows.
func wants(w *catalog.Webhook, kind store.ChangeKind) bool {
	var e catalog.WebhookEvents
	switch kind {
	case store.InsertChange:
		e = catalog.EventInsert
	case store.UpdateChange:
		e = catalog.EventUpdate
	case store.DeleteChange:
		e = catalog.EventDelete
	case store.SchemaChange:
		e = catalog.EventSchema
	case store.UnknownChange:
		e = catalog.EventInsert | catalog.EventUpdate | catalog.EventDelete
	}
	return w.Events&e != 0
}

// groups are what a webhook is told of a commit, in the order of what changed first.
func groups(w *catalog.Webhook, m *feed.Messages) (list []group) {
	type key struct {
		table string
		kind  store.ChangeKind
	}
	at := map[key]int{}
	var tables map[string]bool
	if w.Tables != nil {
		tables = map[string]bool{}
		for _, t := range w.Tables {
			tables[sqlite.Fold(t)] = true
		}
	}
	for i := range m.List {
		c := &m.List[i]
		if tables != nil && !tables[c.Table] || !wants(w, c.Kind) {
			continue
		}
		k := key{c.Table, c.Kind}
		n, ok := at[k]
		if !ok {
			n = len(list)
			at[k] = n
			list = append(list, group{table: c.Name, kind: c.Kind, first: c.Seq})
		}
		list[n].last = c.Seq
		list[n].changes++
	}
	return list
}

// delivery is the message of a group. Its id is the same whenever it is made of the same changes.
func (g *group) delivery(w *catalog.Webhook, at time.Time) (catalog.Delivery, error) {
	content, err := json.Marshal(struct {
		Table   string `json:"table"`
		Kind    string `json:"kind"`
		Seq     int64  `json:"seq"`
		Changes int    `json:"changes"`
	}{g.table, g.kind.Word(), g.last, g.changes})
	return catalog.Delivery{ID: idOf(w.ID, g.first, g.last, g.table, g.kind.Word()), Type: catalog.MessageRowChange, Content: content, At: at, Since: at}, err
}

// missed is the message that says that changes are missing before a change: read the tables again.
func missed(w *catalog.Webhook, seq int64, at time.Time) catalog.Delivery {
	return catalog.Delivery{ID: idOf(w.ID, seq, "resync"), Type: catalog.MessageRowChange, At: at, Since: at,
		Content: fmt.Appendf(nil, `{"table":"*","kind":"unknown","seq":%d,"resync":true}`, seq)}
}

func idOf(parts ...any) string {
	h := sha256.Sum256([]byte(fmt.Sprintf("%q", parts)))
	return "msg_" + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(h[:15]))
}

const timeFormat = "2006-01-02T15:04:05.000Z"

// Body is what is sent of a message (shared contract, realtime.md, "Webhooks"). database is namespace:slug.
func Body(d *catalog.Delivery, database, baseURL string) ([]byte, error) {
	var m map[string]json.RawMessage
	if err := json.Unmarshal(d.Content, &m); err != nil {
		return nil, fmt.Errorf("message %s: %w", d.ID, err)
	}
	var head struct {
		ID       string `json:"id"`
		Type     string `json:"type"`
		TS       string `json:"ts"`
		Database string `json:"database"`
		URL      string `json:"approvalUrl,omitempty"`
	}
	head.ID, head.Type, head.TS, head.Database = d.ID, d.Type, d.At.UTC().Format(timeFormat), database
	if raw, ok := m["approvalId"]; ok {
		var id string
		if err := json.Unmarshal(raw, &id); err != nil {
			return nil, fmt.Errorf("message %s: %w", d.ID, err)
		}
		head.URL = baseURL + "/approve/" + id
	}
	b, err := json.Marshal(head)
	if err != nil {
		return nil, err
	}
	if len(m) == 0 {
		return b, nil
	}
	return append(append(b[:len(b)-1], ','), d.Content[1:]...), nil
}
