package bucket

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/minio/minio-go/v7/pkg/s3utils"
)

// Open opens the bucket that a URL names, asking nobody: that it can be reached shows with the first operation.
//
//	file:///absolute/path          a folder, which is made if its parent is there
//	s3://bucket/prefix?…           storage that speaks S3, with the credentials of the usual AWS_ variables, files and roles
//	    endpoint=http://host:port  another server than AWS; without it AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, if they are set
//	    region=eu-central-1        without it AWS_REGION or AWS_DEFAULT_REGION; AWS itself is asked where there is none of them
//	    path-style=true|false      whether the bucket is in the path, not in the host's name: true, but for AWS
//
// No error repeats the URL, in which somebody may have put a secret.
func Open(raw string, o Options) (Bucket, error) {
	o = o.withDefaults()
	if err := o.Limits.check(); err != nil {
		return nil, fmt.Errorf("open bucket: %w", err)
	}
	// What the parser says of a bad URL repeats it.
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Scheme != "file" && u.Scheme != "s3":
		return nil, errors.New("open bucket: the URL is neither file:///path nor s3://bucket/prefix?endpoint=…&region=…")
	case u.User != nil:
		return nil, errors.New("open bucket: the URL has a user or a password; credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or from a file or role")
	case u.Fragment != "":
		return nil, errors.New("open bucket: the URL has a #; write %23 for one that is part of a path")
	}
	var b Bucket
	if u.Scheme == "file" {
		b, err = openFolderURL(u, o)
	} else {
		b, err = openS3URL(u, o)
	}
	if err != nil {
		return nil, fmt.Errorf("open bucket: %w", err)
	}
	return b, nil
}

func openFolderURL(u *url.URL, o Options) (Bucket, error) {
	switch {
	case u.Host != "" && u.Host != "localhost":
		return nil, errors.New("a file URL has no host; write file:///absolute/path, with three slashes")
	case u.RawQuery != "":
		return nil, errors.New("a file URL has no parameters; write %3F for a ? that is part of the path")
	case !filepath.IsAbs(u.Path):
		return nil, errors.New("the path of a file URL is absolute; write file:///absolute/path")
	}
	return newFolder(filepath.Clean(u.Path), o)
}

// s3Target is what an S3 URL says, with the environment's defaults.
type s3Target struct {
	bucket, prefix string // the prefix has no / at its ends
	host           string // and port
	secure         bool   // https
	aws            bool   // no other endpoint was given
	region         string // empty: to be asked
	pathStyle      bool
}

var s3Parameters = []string{"endpoint", "path-style", "region"}

func openS3URL(u *url.URL, o Options) (Bucket, error) {
	t := s3Target{bucket: u.Host, prefix: strings.Trim(u.Path, "/"), region: firstOf("AWS_REGION", "AWS_DEFAULT_REGION")}
	if s3utils.CheckValidBucketNameStrict(t.bucket) != nil {
		return nil, errors.New("s3:// is followed by the name of a bucket, which has 3 to 63 lower-case letters, digits, dots and hyphens")
	}
	if t.prefix != "" {
		if err := checkKey(t.prefix); err != nil || len(t.prefix) > maxPrefix {
			return nil, fmt.Errorf("the prefix behind the bucket is of letters, digits and ._- with / between its parts, and has at most %d bytes", maxPrefix)
		}
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, errors.New("what follows the ? of the URL is not of the form name=value&name=value")
	}
	for name, values := range q {
		if !slices.Contains(s3Parameters, name) {
			return nil, fmt.Errorf("an S3 URL has no parameter other than %s; credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or from a file or role",
				strings.Join(s3Parameters, ", "))
		}
		if len(values) != 1 || values[0] == "" {
			return nil, fmt.Errorf("the parameter %s has no value, or several", name)
		}
	}
	if r := q.Get("region"); r != "" {
		t.region = r
	}
	if strings.Trim(t.region, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
		return nil, errors.New("the region is of letters, digits and hyphens, as eu-central-1")
	}
	endpoint := q.Get("endpoint")
	if endpoint == "" {
		endpoint = firstOf("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
	}
	if err := t.setEndpoint(endpoint); err != nil {
		return nil, err
	}
	t.pathStyle = !t.aws
	if s := q.Get("path-style"); s != "" {
		if s != "true" && s != "false" {
			return nil, errors.New("the parameter path-style is true or false")
		}
		t.pathStyle = s == "true"
	}
	return newS3(t, o)
}

func (t *s3Target) setEndpoint(endpoint string) error {
	if endpoint == "" {
		t.host, t.secure, t.aws = "s3.amazonaws.com", true, true
		return nil
	}
	if !strings.Contains(endpoint, "://") {
		endpoint = "https://" + endpoint
	}
	e, err := url.Parse(endpoint)
	if err == nil && e.User != nil {
		return errors.New("the endpoint has a user or a password; credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or from a file or role")
	}
	if err != nil || e.Scheme != "http" && e.Scheme != "https" || e.Hostname() == "" || strings.Trim(e.Path, "/") != "" || e.RawQuery != "" || e.Fragment != "" {
		return errors.New("the endpoint is of the form http://host:port or https://host")
	}
	t.host, t.secure = e.Host, e.Scheme == "https"
	if t.region == "" {
		// What other servers than AWS call their only region, where they know of any.
		t.region = "us-east-1"
	}
	return nil
}

// firstOf is the first of the environment's variables that is set.
func firstOf(names ...string) string {
	for _, name := range names {
		if v := os.Getenv(name); v != "" {
			return v
		}
	}
	return ""
}
