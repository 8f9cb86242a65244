// Go wants an assembly file beside functions that it finds no body of: those of the runtime in sync_linux.go.
