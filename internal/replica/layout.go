package replica

import (
	"fmt"
	"path"

	"github.com/superfly/ltx"
)

// The levels of a database's files, as Litestream has them: each file covers the transactions of several of the level below.
const (
	levelSync     = 0 // a second of transactions
	levelMoment   = 1 // 30 seconds of them
	levelHour     = 2
	levelSnapshot = 9 // all of a database, as it was
)

// catalogName is where the catalog is; databases are below databasesName, by their ids.
const (
	catalogName   = "catalog"
	databasesName = "databases"
)

// markerKey is the object that says which server's replica this is.
const markerKey = "persqld.json"

func databasePrefix(id string) string { return path.Join(databasesName, id) }

// txid is the number that a position of the history has in LTX, whose numbers begin with 1: position 0 is the empty database.
func txid(position uint64) ltx.TXID { return ltx.TXID(position + 1) }

// fileKey is the key of a file. levelDir is the bucket's.
func fileKey(prefix, levelDir string, first, last ltx.TXID) string {
	return path.Join(prefix, levelDir, fmt.Sprintf("%s-%s.ltx", first, last))
}
