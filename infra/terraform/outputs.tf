output "pool_variables" {
  description = "What the pool ec2 is told."
  value = {
    instance_profile = aws_iam_instance_profile.machine.name
    launch_template  = aws_launch_template.machine.name
    secret_id        = aws_secretsmanager_secret.train.name
  }
}

output "worker_environment" {
  description = "What the worker and whatever runs the sweep have in their environment, besides SPACEPORT_EC2_REGION."
  value = {
    SPACEPORT_EC2_OWNER        = var.name
    SPACEPORT_CHECKPOINT_STORE = "s3://${aws_s3_bucket.checkpoints.bucket}/checkpoints"
  }
}

output "worker_policy_arn" {
  description = "The permissions of the worker."
  value       = aws_iam_policy.worker.arn
}
