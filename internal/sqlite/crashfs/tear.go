package crashfs

import (
	"bytes"
	"math/rand/v2"
)

// sectorSize is what a disk writes at once, in bytes, aligned in the file.
const sectorSize = 512

// tear applies a part of a write that the power loss interrupted: some of its
// sectors are new, the others as before; the one that was on its way may be cut
// at any byte, or hold garbage. Bytes outside the write's own range stay as they
// were, which is SQLite's POWERSAFE_OVERWRITE and what the unix VFS assumes.
func tear(data []byte, off int64, p []byte, rng *rand.Rand) []byte {
	pieces := sectors(off, p)
	kept := rng.IntN(len(pieces) + 1)
	mode := rng.IntN(3)
	for i, s := range pieces {
		var keep bool
		switch mode {
		case 0:
			keep = i < kept
		case 1:
			keep = i >= len(pieces)-kept
		default:
			keep = rng.IntN(2) == 0
		}
		if keep {
			data = overwrite(data, s.off, s.data)
		}
	}
	if s := pieces[rng.IntN(len(pieces))]; rng.IntN(2) == 0 {
		data = overwrite(data, s.off, s.data[:rng.IntN(len(s.data))+1])
	} else if rng.IntN(4) == 0 {
		garbage := bytes.Clone(s.data)
		for i := range garbage {
			garbage[i] = byte(rng.Uint32())
		}
		data = overwrite(data, s.off, garbage)
	}
	if end := off + int64(len(p)); end > int64(len(data)) && rng.IntN(2) == 0 {
		data = resize(data, end)
	}
	return data
}

// sector is the part of a write that falls into one sector of the file.
type sector struct {
	off  int64
	data []byte
}

func sectors(off int64, p []byte) []sector {
	var out []sector
	for len(p) > 0 {
		n := min(int64(len(p)), sectorSize-off%sectorSize)
		out = append(out, sector{off, p[:n]})
		off, p = off+n, p[n:]
	}
	return out
}
