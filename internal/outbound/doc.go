// Package outbound connects to where users and operators say: to the internet, and to the private networks that the operator has named, and nowhere else. Where a name
// leads is judged when it is connected to, so that one whose address changes between a check and the connection leads nowhere else.
package outbound
