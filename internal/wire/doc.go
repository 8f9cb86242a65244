// Package wire is the JSON of the data plane: values on their way out, request bodies on their way in.
//
// # Out
//
// The Append functions write one JSON value to the end of a buffer and return the longer buffer, as
// strconv.AppendInt does. They allocate only where the buffer has to grow. A row is written by appending its values
// with the caller's own brackets and commas between them; the bytes handed in may be the engine's memory, nothing of
// them is kept.
//
// # In
//
// [DecodeQuery] and [DecodeBatch] read a body in one pass, without reflection, into a [Query] or [Batch] that the
// caller keeps and uses again. What they hand out (SQL, texts, blobs) points into the body or into memory of
// that Query, so the body must stay as it is until Reset. The body is never written to: it can be hashed afterwards.
// [DecodeObject] serves the routes that are called rarely.
//
// # Which JSON
//
// The decoders accept the JSON that encoding/json accepts, nested up to [MaxDepth] levels: names are compared exactly,
// unknown ones are ignored, of a name given twice the last one counts, and what can't be text (invalid UTF-8, halves of
// surrogate pairs) becomes U+FFFD. That is more lenient than encoding/json/v2, on purpose: a client in the field
// can't be corrected from here. Every failure is an [*Error]; its code is bad_json exactly where encoding/json would
// call the body invalid or it nests too deep, wherever in the body another mistake stands.
package wire
