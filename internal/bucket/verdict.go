package bucket

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/minio/minio-go/v7"
)

// Texts for operators. They say what to look at, since the server's own only say what is wrong.
const (
	hintKeys     = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the file or role that the credentials come from"
	hintExpired  = "the credentials have expired: renew AWS_SESSION_TOKEN and what belongs to it"
	hintDenied   = "the credentials' policy must allow s3:ListBucket on the bucket, and s3:GetObject, s3:PutObject, s3:DeleteObject and s3:AbortMultipartUpload below the prefix"
	hintBucket   = "make the bucket, or correct its name in the URL"
	hintRegion   = "name the bucket's region in the URL, as region=eu-central-1, and leave out the endpoint if it is another region's"
	hintClock    = "set this machine's clock: requests are signed with the time"
	hintCA       = "name the certificate authority's file in AWS_CA_BUNDLE, or correct the endpoint's name"
	hintHTTP     = "the endpoint speaks HTTP without TLS: write endpoint=http://…"
	hintReach    = "check the endpoint, and that this machine can reach it"
	hintOverload = "the server is overloaded or broken: look at its own log or status page, or lower the rate of requests"
	hintSource   = "what was to be stored could not be read: look at this machine's disk"
	hintProxy    = "what answered may be no S3 server: check the endpoint, and the proxies before it"
)

// errPage says that what came with a status of success is a page for people. The client would take it for an empty listing.
var errPage = errors.New("the answer is a page of HTML, so it is no S3 server's")

// errNoETag says that what came with a status of success isn't an answer of S3's, all of which tell which object it is.
var errNoETag = errors.New("the answer has no ETag, so it is no S3 server's")

// passing are codes of answers that aren't 5xx, and that say nothing against the request made once more: it arrived damaged or cut, or came in another's way.
var passing = []string{"BadDigest", "IncompleteBody", "InvalidDigest", "OperationAborted", "RequestTimeout", "SlowDown", "ThrottlingException",
	"XAmzContentSHA256Mismatch", "ConditionalRequestConflict", "TooManyRequests"}

// hints are for the codes that a request isn't made again after.
var hints = map[string]string{
	"AccessDenied":                 hintDenied,
	"AllAccessDisabled":            hintDenied,
	"AuthorizationHeaderMalformed": hintRegion,
	"ExpiredToken":                 hintExpired,
	"IllegalLocationConstraint":    hintRegion,
	"InvalidAccessKeyId":           hintKeys,
	"InvalidRegion":                hintRegion,
	"InvalidToken":                 hintExpired,
	"NoSuchBucket":                 hintBucket,
	"PermanentRedirect":            hintRegion,
	"RequestTimeTooSkewed":         hintClock,
	"SignatureDoesNotMatch":        hintKeys,
	"XAdminUserNotFound":           hintKeys, // versitygw's
}

// judge tells what an error of the client's means. A server may repeat what it was sent, so texts that aren't ours are stripped of credentials.
func (s *s3) judge(err error) verdict {
	var (
		answer  minio.ErrorResponse
		slow    errSlow
		source  sourceError
		noKeys  noCredentials
		unknown x509.UnknownAuthorityError
		named   x509.HostnameError
		invalid x509.CertificateInvalidError
		record  tls.RecordHeaderError
		alert   tls.AlertError
		dns     *net.DNSError
	)
	switch {
	case errors.As(err, &answer):
		return s.judgeAnswer(answer)
	case errors.As(err, &slow):
		return verdict{err: slow, hint: hintReach, again: true}
	case errors.As(err, &source):
		return verdict{err: source, hint: hintSource}
	case errors.As(err, &noKeys):
		return verdict{err: noKeys, hint: hintNoCredentials}
	case errors.As(err, &unknown), errors.As(err, &named), errors.As(err, &invalid):
		return verdict{err: s.reason(err), hint: hintCA}
	case errors.As(err, &record), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return verdict{err: s.reason(err), hint: hintHTTP}
	case errors.As(err, &alert):
		return verdict{err: s.reason(err), hint: hintReach}
	case errors.As(err, &dns):
		return verdict{err: s.reason(err), hint: hintReach, again: true}
	case errors.Is(err, errNoETag), errors.Is(err, errPage):
		return verdict{err: s.reason(err), hint: hintProxy, again: true}
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, errChanged):
		return verdict{err: err}
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		// Not the caller's, or nobody would judge it: the client's own, of a connection or of the credentials' server.
		return verdict{err: errors.New("the connection took too long"), hint: hintReach, again: true}
	}
	return verdict{err: s.reason(err), hint: hintReach, again: true}
}

func (s *s3) judgeAnswer(a minio.ErrorResponse) verdict {
	what := s.readable(a.Code)
	// The status is 0 for one of many objects, or an answer that began as a success; the client makes up a code where there is none.
	if status := strconv.Itoa(a.StatusCode); a.StatusCode != 0 && !strings.HasPrefix(what, status) {
		what = status + " " + what
	}
	err := fmt.Errorf("the server answered %s: %s", what, strings.TrimSuffix(s.readable(a.Error()), "."))
	switch {
	case (a.Code == minio.NoSuchKey || a.Code == minio.NoSuchBucket) && a.XMLName.Local == "" && a.RequestID == "":
		// The client takes any 404 for one of them. This one came from something before the server, as a proxy that has no server just now.
		return verdict{err: errors.New("what answered 404 is no S3 server"), hint: hintProxy, again: true}
	case a.Code == minio.NoSuchKey:
		return verdict{err: fs.ErrNotExist}
	case a.Code == "NoSuchUpload":
		return verdict{err: errNoUpload}
	case slices.Contains(passing, a.Code), a.StatusCode == http.StatusTooManyRequests, a.StatusCode == http.StatusRequestTimeout,
		a.StatusCode >= 500 && a.StatusCode != http.StatusNotImplemented, a.Code == "InternalError", a.Code == "ServiceUnavailable":
		return verdict{err: err, hint: hintOverload, again: true}
	}
	hint := hints[a.Code]
	if hint == "" {
		switch a.StatusCode {
		case http.StatusUnauthorized:
			hint = hintKeys
		case http.StatusForbidden:
			hint = hintDenied
		case http.StatusMovedPermanently, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
			hint = hintRegion
		default:
			hint = hintProxy
		}
	}
	return verdict{err: err, hint: hint}
}

// reason is what a connection failed with, without the address of the request, which says no more than the bucket and the key.
func (s *s3) reason(err error) error {
	var request *url.Error
	if errors.As(err, &request) {
		err = request.Err
	}
	if strings.HasPrefix(err.Error(), "Connection closed by foreign host") {
		// The client's words for an EOF, with advice that was followed.
		return errors.New("the connection was closed")
	}
	return errors.New(s.readable(err.Error()))
}

// readable is a text of another's without credentials, which are looked for before it is cut.
func (s *s3) readable(text string) string { return clip(s.credentials.strip(text)) }

// clip keeps an error readable where what answered sent a page.
func clip(text string) string {
	const most = 300 // bytes
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "?")), " ")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}
