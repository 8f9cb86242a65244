package bucket

import (
	"context"
	"errors"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"
)

// roleTimeout bounds a question to the servers of container and instance roles. They are beside this machine, or not there at all.
const roleTimeout = 3 * time.Second

const hintNoCredentials = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a profile in AWS_PROFILE and its file in AWS_SHARED_CREDENTIALS_FILE, or give the machine a role"

// noCredentials says where credentials were looked for.
type noCredentials struct{ tried string }

func (e noCredentials) Error() string { return "no credentials: " + e.tried }

// awsCredentials are those that the environment leads to: the client's own chain goes on without any where it finds none, and doesn't say why.
type awsCredentials struct {
	role credentials.IAM
	file credentials.FileAWSCredentials

	mu      sync.Mutex
	current credentials.Provider
	secrets []string // of which no error may have one
}

var _ credentials.Provider = (*awsCredentials)(nil)

func newCredentials() *awsCredentials {
	c := &awsCredentials{}
	c.role.Client = &http.Client{Timeout: roleTimeout}
	return c
}

// Retrieve looks for credentials where the environment says that they are.
func (c *awsCredentials) Retrieve() (credentials.Value, error) {
	return c.RetrieveWithCredContext(&credentials.CredContext{Context: context.Background()})
}

// RetrieveWithCredContext is Retrieve. The client calls one at a time.
func (c *awsCredentials) RetrieveWithCredContext(cc *credentials.CredContext) (credentials.Value, error) {
	var tried []string
	for _, source := range c.sources() {
		v, err := source.RetrieveWithCredContext(cc)
		if err == nil && (v.AccessKeyID == "" || v.SecretAccessKey == "") {
			err = errors.New("has none")
		}
		if err != nil {
			tried = append(tried, source.name+": "+clip(err.Error()))
			continue
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.current = source
		// The former ones may still be in the answer to a request that is on its way.
		c.secrets = append(c.secrets[max(0, len(c.secrets)-3):], v.AccessKeyID, v.SecretAccessKey, v.SessionToken)
		return v, nil
	}
	return credentials.Value{}, noCredentials{strings.Join(tried, "; ")}
}

// IsExpired tells the client to ask again.
func (c *awsCredentials) IsExpired() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current == nil || c.current.IsExpired()
}

// strip takes the credentials out of a text.
func (c *awsCredentials) strip(text string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.secrets {
		if s != "" {
			text = strings.ReplaceAll(text, s, "***")
		}
	}
	return text
}

type source struct {
	name string
	credentials.Provider
}

// sources are where to look, in the order of AWS's own clients.
func (c *awsCredentials) sources() (list []source) {
	if os.Getenv("AWS_ACCESS_KEY_ID") != "" {
		return []source{{"AWS_ACCESS_KEY_ID", &credentials.EnvAWS{}}}
	}
	role := source{"the role", &c.role}
	if firstOf("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI") != "" {
		list = append(list, role)
	}
	list = append(list, source{"the credentials file", &c.file})
	if len(list) == 1 && !strings.EqualFold(os.Getenv("AWS_EC2_METADATA_DISABLED"), "true") {
		list = append(list, role)
	}
	return list
}
