# Attach it to whatever the worker runs as: a role, or a user with keys of its own.
resource "aws_iam_policy" "worker" {
  name        = "${var.name}-worker"
  description = "Rent, read and end instances that bear the owner tag ${var.name}, and nothing else"
  tags        = local.tags
  policy = templatefile("${path.module}/policies/worker.json.tftpl", {
    account = local.account
    name    = var.name
    role    = aws_iam_role.machine.arn
  })
}
