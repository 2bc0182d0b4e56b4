[template v0] user={{user}} count={{count}}
{{note}} {{marks}}
