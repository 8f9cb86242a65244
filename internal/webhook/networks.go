package webhook

import "github.com/persqld/persqld/internal/outbound"

// Networks says what webhooks may reach beside the internet.
type Networks = outbound.Networks

// ErrURL is returned for an address that can't be a webhook's. ErrAddress is it for one in a network that may not be reached.
var (
	ErrURL     = outbound.ErrURL
	ErrAddress = outbound.ErrAddress
)
